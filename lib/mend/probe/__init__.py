"""A project's own alembic, run by the project's own interpreter, telling what it does as JSON lines.

mend never imports a project: it starts this package with the project's python, writes one JSON request to its standard
input and reads events from its standard output.  Self-contained on purpose: standard library, alembic and sqlalchemy
only; Python 3.9+, Alembic 1.7+, SQLAlchemy 1.4+, psycopg2, psycopg or asyncpg.

Actions: ``env`` (who does env.py connect to?), ``replay`` (record a revision in a scratch database), ``trial`` (try its
statements on a copy of the target's schema), ``upgrade`` (the real thing, statement by statement, on the real target),
``walk`` (revision by revision from one version row to another, in a scratch database), ``draft`` (the file that ``alembic merge``
would write), ``sql`` (what ``alembic upgrade --sql`` would print), ``tables`` (what an
application's MetaData expects).  With ``overlay``, revision files as they would be are read.
"""
