"""The only reader of mend's .sql files.

A file is one question. Its first lines are its contract, and they are checked: what it asks, what it must be given, what it
answers, what it needs (``test_queries.py`` runs this format through every way to break it)::

    -- Which sessions wait for a lock on this table, and behind whom?
    -- binds: table_name text, min_wait_s float8 (seconds)
    -- columns: pid int4, wait_s float8 (seconds), blocked_by int4[] (pids)
    -- needs: PostgreSQL >= 14, pg_monitor

``binds: none`` says that there are none. A line that begins with ``--`` and three spaces continues the one above.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

from mend import errors

if TYPE_CHECKING:  # pandas and sqlalchemy cost most of a second; `mend --help` never asks a question
    import pandas
    from sqlalchemy import Connection

HEADER = ("binds", "columns", "needs")
_NAME = re.compile(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)+")
_FIELD = re.compile(r"(?P<name>[a-z][a-z0-9_]*) (?P<type>[a-z][a-z0-9_]*(?:\[\])?)(?: \((?P<unit>[^()]+)\))?")
_VARIANT = re.compile(r"\.pg(\d+)\.sql$")
_DTYPES = {
    "bool": "boolean", "int2": "Int64", "int4": "Int64", "int8": "Int64", "oid": "Int64", "float4": "float64",
    "float8": "float64", "text": "str", "name": "str", "timestamptz": "datetime64[us, UTC]",
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One bind or one column of a question: its name, its PostgreSQL type, and its unit ('' when it has none)."""

    name: str
    type: str
    unit: str = ""


@dataclass(frozen=True)
class Query:
    """One question: the SQL without its header, and what the header promises."""

    name: str
    sql: str
    question: str
    binds: tuple[Field, ...]
    columns: tuple[Field, ...]
    needs: str


def parse(name: str, text: str) -> Query:
    """Read one file's text; a header that is not whole is a QueryFileBroken that names the file."""
    header, body = _split(text)
    if not header or not header[0].endswith("?"):
        raise _broken(name, "line 1 is not `-- The question?`")
    fields = _header_fields(name, header[1:])
    binds, columns = (_fields(name, word, fields[word]) for word in ("binds", "columns"))
    if not columns or not body.strip():
        raise _broken(name, "it has no columns" if body.strip() else "it has no SQL below its header")
    return Query(name, body.strip() + "\n", header[0], binds, columns, fields["needs"])


def question(name: str, *, version_num: int = 0) -> Query:
    """Read one question by name, in the variant for a server version.

    Parameters
    ----------
    name : ``"<folder>/<file>"`` below ``lib/mend/sql``, without ``.sql``
    version_num : ``server_version_num``, e.g. 170002; the newest ``<name>.pg<major>.sql`` that is not newer is chosen

    Raises: QueryFileBroken if there is no such file, or its header is not whole.
    """
    return _question(name, version_num // 10000)


def frame(conn: Connection, name: str, /, **binds: Any) -> pandas.DataFrame:
    """Ask one question and return its answer.

    Parameters
    ----------
    name : as for ``question``
    binds : one value for each bind that the file's header declares; no more, no fewer

    Returns
    -------
    DataFrame with exactly the header's columns and their dtypes, also when empty. ``.attrs["sql"]`` is the SQL that ran,
    ``.attrs["question"]`` the question, ``.attrs["name"]`` the name.

    Raises: QueryFileBroken if the binds or the answer's columns differ from the header. Driver errors pass through.
    """
    import sqlalchemy

    query = question(name, version_num=version_num(conn))
    statement = sqlalchemy.text(query.sql)
    used = set(statement.compile().params)
    declared = {bind.name for bind in query.binds}
    _check_binds(query.name, declared, used, binds)
    result = conn.execute(statement, binds)
    return _as_frame(query, list(result.keys()), [tuple(row) for row in result])


def version_num(conn: Connection) -> int:
    """``server_version_num`` of a connection's server, from what the driver was told at login."""
    major, minor = (*(conn.dialect.server_version_info or (0, 0)), 0)[:2]
    return int(major) * 10000 + int(minor)


@functools.cache
def _question(name: str, major: int) -> Query:
    """Find and parse; cached, because a package's files do not change."""
    if not _NAME.fullmatch(name):
        raise _broken(name, "a question is named `<folder>/<file>` in lower case")
    *folders, file = name.split("/")
    folder = importlib.resources.files("mend").joinpath("sql", *folders)
    chosen = _choose(folder, file, major) if folder.is_dir() else None
    if chosen is None:
        raise _broken(name, "there is no such file")
    return parse(name, chosen.read_text(encoding="utf-8"))


def _choose(folder: Traversable, file: str, major: int) -> Traversable | None:
    """The newest variant that this major can run, else the plain file."""
    best: tuple[int, Traversable] | None = None
    for path in folder.iterdir():
        variant = _VARIANT.search(path.name)
        since = int(variant[1]) if variant else 0
        if path.name in (f"{file}.sql", f"{file}.pg{since}.sql") and since <= major and (not best or since > best[0]):
            best = (since, path)
    return best[1] if best else None


def _split(text: str) -> tuple[list[str], str]:
    """The header's lines without their dashes, continuations joined, and the rest."""
    lines = text.splitlines()
    header: list[str] = []
    while lines and lines[0].startswith("--"):
        line = lines.pop(0)
        if line.startswith("--   ") and header:
            header[-1] += " " + line[2:].strip()
        else:
            header.append(line[2:].strip())
    return header, "\n".join(lines)


def _header_fields(name: str, lines: list[str]) -> dict[str, str]:
    """``binds``, ``columns`` and ``needs``, each exactly once and in this order."""
    found = [line.partition(":") for line in lines]
    for position, word in enumerate(HEADER):
        if position >= len(found) or found[position][0] != word or not found[position][2].strip():
            raise _broken(name, f"line {position + 2} is not `-- {word}: ...`")
    if len(found) > len(HEADER):
        raise _broken(name, f"its header has a line that is none of ours: {lines[len(HEADER)]!r}")
    return {word: rest.strip() for word, _, rest in found}


def _fields(name: str, word: str, text: str) -> tuple[Field, ...]:
    """Parse ``pid int4, wait_s float8 (seconds)``; ``none`` is the empty list."""
    if text == "none":
        return ()
    fields = []
    for item in re.split(r",\s*(?![^()]*\))", text):
        match = _FIELD.fullmatch(item.strip())
        if match is None:
            raise _broken(name, f"{word}: {item.strip()!r} is not `name type (unit)`")
        fields.append(Field(match["name"], match["type"], match["unit"] or ""))
    names = [field.name for field in fields]
    if len(set(names)) != len(names):
        raise _broken(name, f"{word}: a name stands there twice")
    return tuple(fields)


def _check_binds(name: str, declared: set[str], used: set[str], given: Mapping[str, Any]) -> None:
    """The header, the SQL and the caller must speak of the same binds."""
    if declared != used:
        raise _broken(name, f"its header declares the binds {sorted(declared)}, its SQL uses {sorted(used)}")
    if declared != set(given):
        raise _broken(name, f"it needs the binds {sorted(declared)}, and was given {sorted(given)}")


def _as_frame(query: Query, names: list[str], rows: list[tuple[Any, ...]]) -> pandas.DataFrame:
    """Rows as a frame whose columns and dtypes come from the header, never from the rows."""
    import pandas

    expected = [column.name for column in query.columns]
    if names != expected:
        raise _broken(query.name, f"its header promises the columns {expected}, it answers {names}")
    values = list(zip(*rows, strict=True)) or [()] * len(names)
    answer = pandas.DataFrame(
        {c.name: _series(list(v), c.type) for c, v in zip(query.columns, values, strict=True)}, columns=expected
    )
    answer.attrs.update(sql=query.sql, question=query.question, name=query.name)
    return answer


def _series(values: list[Any], type_name: str) -> pandas.Series[Any]:
    """One column; a type without a faithful pandas dtype (numeric, arrays, json, intervals) stays object."""
    import pandas

    dtype = _DTYPES.get(type_name, "object")
    if dtype.startswith("datetime64"):
        # to_datetime and not astype: the server sends the session's offset, and it may change with the season
        return pandas.Series(pandas.to_datetime(pandas.Series(values, dtype="object"), utc=True), dtype=dtype)
    return pandas.Series(values, dtype=dtype)


def _broken(name: str, what: str) -> errors.QueryFileBroken:
    """The error for one file."""
    return errors.QueryFileBroken(
        f"The query file {name}.sql is broken: {what}. The question was not asked, and nothing was changed. "
        "Reinstall mend, or report this.",
        file=name,
    )
