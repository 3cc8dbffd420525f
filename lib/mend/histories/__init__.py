"""A user's Alembic project: its files, their graph, what git has of them, what lint says."""
