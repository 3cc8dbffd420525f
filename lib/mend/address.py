"""From the name of a database to libpq's connection keywords: ``env:NAME``, ``service:NAME``, and what a variable holds.

Parsers quote what they do not understand, and that may be the password: their errors are never passed on.
"""

from __future__ import annotations

import os
import re
from typing import Any

from mend.errors import InvalidParameter, TargetUnknown

FORMS = ("env:", "service:")
_NAME = re.compile(r"[^\s:/@=?&'\"]+")
_OF_SQLALCHEMY = re.compile(r"postgres(ql)?\+\w+://")
_SSL = {"true": "require", "1": "require", "false": "disable", "0": "disable"}  # as other drivers spell sslmode
# What other drivers understand in an address, and what says nothing about where to connect.
_OF_OTHER_DRIVERS = (
    "prepared_statement_cache_size", "prepared_statement_name_func", "statement_cache_size", "command_timeout", "async_fallback",
    "server_settings", "pgbouncer", "schema",
)  # fmt: skip


def a_name(text: str) -> str:
    """The text, if it can be a name; what looks like an address is refused, and not even quoted.

    Raises: TargetUnknown.
    """
    if _NAME.fullmatch(text):
        return text
    raise TargetUnknown(
        "A target is a name, never an address, because parameters are archived in clear. Nothing was changed. "
        "Put the address in an environment variable and pass env:NAME."
    )


def of_form(form: str) -> dict[str, str]:
    """The connection keywords behind ``env:NAME`` or ``service:NAME``.

    Raises: InvalidParameter where the variable is not set, or holds no address.
    """
    kind, _, name = form.partition(":")
    if f"{kind}:" not in FORMS or not name:
        raise InvalidParameter(
            f"{a_name(kind) if kind else ''!r} names no database. Nothing was changed. Write env:NAME or service:NAME."
        )
    if kind == "service":
        return {"service": a_name(name)}
    value = os.environ.get(a_name(name), "").strip()
    if not value:
        raise InvalidParameter(
            f"The environment variable {name} is not set. Nothing was changed. Set it to the address of the database."
        )
    return keywords(value, form)


def keywords(address: str, name: str) -> dict[str, str]:
    """Connection keywords from an address in libpq's spelling, or in SQLAlchemy's (``postgresql+driver://``, ``ssl=``).

    Raises: InvalidParameter, which says ``name`` and nothing of the address.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from sqlalchemy.exc import ArgumentError

    try:
        found = _by_sqlalchemy(address) if _OF_SQLALCHEMY.match(address) else _by_libpq(address)
        found = conninfo_to_dict(make_conninfo(**found))
    except (ProgrammingError, ArgumentError, ValueError):
        raise InvalidParameter(
            f"{name} does not hold a PostgreSQL address. Nothing was changed. Write postgresql://user@host/database."
        ) from None
    texts = {key: str(value) for key, value in found.items() if value is not None}
    return texts | ({"sslmode": _SSL.get(texts["sslmode"], texts["sslmode"])} if "sslmode" in texts else {})


def _by_libpq(address: str) -> dict[str, Any]:
    """libpq's own reading; SQLAlchemy's where that cannot be meant: of a password with a raw slash or percent sign, say."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        found: dict[str, Any] = conninfo_to_dict(_for_libpq(address))
    except ProgrammingError:
        if "://" not in address:
            raise
        return _by_sqlalchemy(address)
    path = address.partition("://")[2].partition("?")[0].partition("/")[2]
    ports = str(found.get("port") or "").replace(",", "")
    if "://" in address and ("@" in path or not (ports.isdecimal() or not ports)):
        return _by_sqlalchemy(address)
    return found


def _for_libpq(address: str) -> str:
    """The address without the parameters of other drivers; ``ssl=`` is how asyncpg says ``sslmode=``."""
    if "://" not in address:
        return address
    place, mark, query = address.partition("?")
    kept = [part for part in query.split("&") if part.partition("=")[0] not in _OF_OTHER_DRIVERS]
    return place + mark + "&".join(re.sub(r"^ssl=", "sslmode=", part) for part in kept)


def _by_sqlalchemy(address: str) -> dict[str, Any]:
    """The keywords of an address that env.py gives to SQLAlchemy, read by SQLAlchemy's own rules."""
    from sqlalchemy.engine import make_url

    url = make_url(address)
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ValueError("another kind of database")
    query = {key: ",".join(value) if isinstance(value, tuple) else value for key, value in url.query.items()}
    query = {"sslmode" if key == "ssl" else key: value for key, value in query.items() if key not in _OF_OTHER_DRIVERS}
    own = {"user": url.username, "password": url.password, "host": url.host, "port": url.port, "dbname": url.database}
    return query | {key: value for key, value in own.items() if value not in (None, "")}
