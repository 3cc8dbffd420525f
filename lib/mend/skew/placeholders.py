"""The SQL statements of an application, as it has them in its code, and as PostgreSQL takes them for PREPARE.  Pure.

A file is cut at its semicolons; ``:name``, ``%(name)s``, ``%s`` and SQLAlchemy's POSTCOMPILE become ``$1``, ``$2``...  Where each piece
came from is kept, so that an error's position is told in the file's own lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mend.database import names, sqltext

LONGEST, MOST = 1_000_000, 2_000  # characters of a file, statements in it

_TOKEN = re.compile(
    r"""
      (?P<comment>--[^\n]*)
    | (?P<block>/\*)
    | (?P<string>[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)|'(?:[^']|'')*(?:'|\Z)|\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z))
    | (?P<name>"(?:[^"]|"")*(?:"|\Z))
    | (?P<number>\$\d+)
    | (?P<python>%\((?P<python_name>[^()\s]*)\)s)
    | (?P<plain>%s\b)
    | (?P<percent>%%)
    | (?P<cast>::)
    | (?P<bind>(?<![\w\]]):(?P<bind_name>[A-Za-z_]\w*))
    | (?P<post>__\[POSTCOMPILE_(?P<post_name>\w+)\])
    | (?P<word>[^\W\d][\w$]*)
    | (?P<end>;)
    | (?P<space>\s+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_PREPARED = ("select", "insert", "update", "delete", "merge", "values", "with", "table")


@dataclass(frozen=True)
class Said:
    """One statement of an application: ``where`` it stands, in words; ``text`` as it stands there, from character ``at`` of the file."""

    where: str
    text: str
    line: int = 1

    @property
    def verb(self) -> str:
        """Its first word."""
        found = sqltext.statements(self.text)
        return found[0].split(" ", 1)[0] if found else ""

    @property
    def preparable(self) -> bool:
        """Whether PREPARE takes such a statement: it analyses queries and changes of rows, and nothing else."""
        return self.verb in _PREPARED or sqltext.without_comments(self.text).lstrip().startswith("(")


@dataclass(frozen=True)
class Placed:
    """A statement with numbered parameters; ``pieces``: where each part of ``sql`` begins, and where it stood in the original."""

    sql: str
    pieces: tuple[tuple[int, int], ...]

    def original(self, position: int) -> int:
        """The character of the original, from 0, for a character of ``sql``, from 0."""
        begins, stood = max((piece for piece in self.pieces if piece[0] <= position), default=(0, 0))
        return stood + position - begins


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int
    name: str = ""


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None  # the last alternative takes any character
        end = _comment_end(text, at) if match.lastgroup == "block" else match.end()
        kind = next(name for name, value in match.groupdict().items() if value is not None and name in _KINDS)
        named = next((match[group] for group in ("python_name", "bind_name", "post_name") if match[group]), "")
        yield _Token(kind, text[at:end], at, named)
        at = end


_KINDS = frozenset(
    [
        "comment",
        "block",
        "string",
        "name",
        "number",
        "python",
        "plain",
        "percent",
        "cast",
        "bind",
        "post",
        "word",
        "end",
        "space",
        "other",
    ]
)


def _comment_end(text: str, at: int) -> int:
    """PostgreSQL nests comments."""
    depth = 0
    for mark in re.finditer(r"/\*|\*/", text[at:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return at + mark.end()
    return len(text)


def split(text: str, *, name: str) -> tuple[Said, ...]:
    """The statements of a file, in order; ``name`` of the file goes into ``where``.

    >>> [one.where for one in split("select 1; -- a;b\\n select ';' ;", name="q.sql")]
    ['q.sql:1', 'q.sql:2']
    """
    found: list[Said] = []
    start, empty = 0, True
    tokens = list(_tokens(text))
    for token in [*tokens, _Token("end", "", len(text))]:
        if token.kind == "end":
            if not empty:
                begins = start + _leading(text[start : token.at])
                line = text.count("\n", 0, begins) + 1
                found.append(Said(f"{name}:{line}", text[begins : token.at].rstrip(), line))
            start, empty = token.at + len(token.text), True
        elif token.kind not in ("comment", "block", "space"):
            empty = False
    return tuple(found)


def _leading(text: str) -> int:
    """How many characters of space and comments stand before the first word."""
    return next((token.at for token in _tokens(text) if token.kind not in ("comment", "block", "space")), 0)


def numbered(text: str) -> Placed:
    """The statement as PREPARE takes it.

    >>> numbered("select :a, %(b)s, a::int, ':no', :a").sql
    "select $1, $2, a::int, ':no', $1"
    >>> numbered("select 100 %% 7, '%(x)s', %s").sql
    "select 100 % 7, '%(x)s', $1"
    """
    tokens = list(_tokens(text))
    percent = any(token.kind in ("python", "plain") for token in tokens)
    highest = max((int(token.text[1:]) for token in tokens if token.kind == "number"), default=0)
    known: dict[str, int] = {}
    out, pieces, length = [], [], 0
    for n, token in enumerate(tokens):
        written = token.text
        if token.kind in ("python", "bind", "post", "plain"):
            key = token.name or f" {n}"
            known.setdefault(key, highest + len(known) + 1)
            written = f"${known[key]}"
        elif token.kind == "percent" and percent:
            written = "%"
        pieces.append((length, token.at))
        out.append(written)
        length += len(written)
    return Placed("".join(out), tuple(pieces))


@dataclass(frozen=True)
class Insert:
    """What an INSERT gives values to: the relation as it is written; its columns without quotes, or how many of the first ones (None: not known)."""

    relation: str
    columns: tuple[str, ...] = ()
    first: int | None = None


_COLUMNS = rf"(?P<columns> \( {sqltext.PART}(?: , {sqltext.PART})* \))?(?P<rest> .*)?"
_INSERT = re.compile(rf"\binsert into (?P<relation>{sqltext.NAME})(?: as {sqltext.PART})?{_COLUMNS}")
_MERGE = re.compile(rf"\bmerge into (?:only )?(?P<relation>{sqltext.NAME}) ")
_MERGED = re.compile(rf"\bthen insert{_COLUMNS}")


def inserts(text: str) -> tuple[Insert, ...]:
    """Every INSERT of a statement, those inside WITH included.

    >>> inserts('insert into app."T" (a, "B") values (:a, 1)')
    (Insert(relation='app."T"', columns=('a', 'B'), first=None),)
    >>> inserts("insert into t values (1, f(2, 3))")
    (Insert(relation='t', columns=(), first=2),)
    >>> inserts("merge into t using s on t.a = s.a when not matched then insert (a) values (1)")
    (Insert(relation='t', columns=('a',), first=None),)
    """
    found = []
    for statement in sqltext.statements(numbered(text).sql):
        merge = _MERGE.search(statement)
        found += list(_each(_INSERT, statement, ""))
        found += list(_each(_MERGED, statement, merge["relation"])) if merge else []
    return tuple(found)


def _each(pattern: re.Pattern[str], statement: str, relation: str) -> Iterator[Insert]:
    at = 0
    while match := pattern.search(statement, at):
        at = match.end("columns") if match["columns"] else match.start() + 1
        named = tuple(names.unquoted(one) for one in re.findall(sqltext.PART, match["columns"] or ""))
        rest = (match["rest"] or "").strip()
        yield Insert(relation or match["relation"], named, None if named else _given(rest))


def _given(rest: str) -> int | None:
    """How many values stand in the first row of VALUES; 0 of DEFAULT VALUES."""
    if rest.startswith("default values"):
        return 0
    if not rest.startswith("values ("):
        return None
    depth, count = 0, 1
    for word in rest.removeprefix("values ").split(" "):
        depth += (word == "(") - (word == ")")
        count += word == "," and depth == 1
        if depth == 0:
            break
    return count


def relations(found: Sequence[Insert]) -> tuple[str, ...]:
    """The relations, each once."""
    return tuple(dict.fromkeys(one.relation for one in found))
