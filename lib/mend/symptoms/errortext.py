"""Reads an error text of any origin: psql, a server log, an Alembic or SQLAlchemy traceback, a CI log with its noise around.

Pure: text in, values out.  Values of rows (``Key (email)=(ann@example.org)``) are never taken out of a text, only names are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from mend.symptoms.signatures import CLASSES, STATES

LONGEST = 4_000_000  # characters; of a longer log the end is read, where the error is
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_PREFIX = re.compile(
    r"^(?:\S{1,40}\s*\|\s)?"  # compose: `web_1  | `
    r"(?:\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d| [A-Z]{3,4})?\]?:?[ \t])?"  # CI and server logs
    r"(?:##\[(?:error|warning|debug|group)\])?",
    re.MULTILINE,
)
_STATE = re.compile(
    r"\bSQL ?STATE['\"]?[:= ]*[\[('\"]*(?P<a>[0-9A-Z]{5})\b|\b(?:ERROR|FATAL|PANIC):  ?(?P<b>[0-9A-Z]{5}): "
    r"|\bpgcode['\"]?[:= ]+['\"]?(?P<c>[0-9A-Z]{5})\b|,(?P<d>[0-9A-Z]{5}),\"(?=[a-z])",
    re.IGNORECASE,
)
_CLASS = re.compile(r"\b(?:psycopg2?|asyncpg)\.(?:errors|exceptions)(?:\.\w+)?\.(\w+)")
_RUNNING = re.compile(
    r"Running (upgrade|downgrade) (?P<old>[^\n]*?) ?-> ?(?P<new>[^\s,]*)(?:[, ][^\n]*)?$", re.MULTILINE
)
_DOWNGRADE = re.compile(r"\balembic\b[^\n]{0,400}?\sdowngrade\s+(?:--\S+\s+)*([\w@.+-]{1,80})\s*$", re.MULTILINE)
_SCRIPT = re.compile(r"Generating static SQL(?:(?!Context impl)[\s\S])*")
_FRAME = re.compile(
    r'File "(?P<path>[^"\n]*[/\\]versions[/\\](?P<file>[^"/\\\n]+\.py))", line (?P<line>\d+), in (?P<function>\w+)'
)
_STATEMENT = re.compile(
    r"\[SQL: (?P<a>[\s\S]{1,20000}?)\]\s*$|\bSTATEMENT:\s+(?P<b>[^\n]{1,4000})|\b[Qq]uery(?: was)?: (?P<c>[^\n]{1,4000})",
    re.MULTILINE,
)
_NAME = r'((?:"[^"\n]{1,63}"|[\w$]{1,63})(?:\.(?:"[^"\n]{1,63}"|[\w$]{1,63}))?)'
_TABLE = re.compile(
    rf"\b(?:ALTER\s+TABLE|INSERT\s+INTO|CREATE\s+(?:UNIQUE\s+)?INDEX\b[^()]{{0,200}}?\bON|UPDATE|DELETE\s+FROM|CREATE\s+TABLE|DROP\s+TABLE|COPY)"
    rf"\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(?:ONLY\s+)?{_NAME}",
    re.IGNORECASE,
)
_CONCURRENT = re.compile(
    r"\b(?:CREATE(?:\s+UNIQUE)?|DROP)\s+INDEX\s+CONCURRENTLY\b|\bREINDEX\b[^;\n]{0,60}\bCONCURRENTLY\b", re.IGNORECASE
)
_WAITING = re.compile(r"Process (\d+) waits for \w+ on [^;\n]{1,100}; blocked by process (\d+)")
_KEY = re.compile(r"Key \((?P<columns>[^=\n]{1,300}?)\)=\((?![^\n]{0,2000}\) is still referenced from )")
_ABSENT = re.compile(r"\) is not present in table \"(?P<parent>[^\"\n]{1,200})\"")
_REFERS = re.compile(
    rf"\bCONSTRAINT\s+{_NAME}\s+FOREIGN\s+KEY\s*\((?P<columns>[^()\n]{{1,300}})\)\s*REFERENCES\s+{_NAME}(?P<keys>\s*\([^()\n]{{1,300}}\))?",
    re.IGNORECASE,
)
_TROUBLE = re.compile(r"\bTraceback\b|Error\b|\b(?:ERROR|FATAL|FAILED)\b|\[exit [1-9]")
_FIELD = re.compile(r"^\s*(SCHEMA|TABLE|COLUMN|CONSTRAINT) NAME:\s+(\S[^\n]*)$", re.MULTILINE)


@dataclass(frozen=True)
class Running:
    """One ``Running upgrade a -> b`` line, and where in the text it stands."""

    direction: str
    old: str
    new: str
    at: int

    @property
    def revision(self) -> str:
        """The revision whose upgrade() or downgrade() ran."""
        return self.new if self.direction == "upgrade" else self.old.split(", ")[0]


@dataclass(frozen=True)
class ErrorText:
    """A cleaned text and what it says besides its messages."""

    text: str

    @cached_property
    def states(self) -> dict[str, int]:
        """SQLSTATEs of our table that the text gives, as a code or as an exception class, with the first place of each."""
        found: dict[str, int] = {}
        for match in _STATE.finditer(self.text):
            found.setdefault(next(filter(None, match.groups())).upper(), match.start())
        for match in _CLASS.finditer(self.text):
            found.setdefault(CLASSES.get(match[1].lower().removesuffix("error"), ""), match.start())
        return {state: at for state, at in found.items() if state in STATES}

    @cached_property
    def running(self) -> tuple[Running, ...]:
        """Every revision that an Alembic log says was run, in order; what was only written as a script (``--sql``) was not."""
        scripts = [(m.start(), m.end()) for m in _SCRIPT.finditer(self.text)]
        return tuple(
            Running(m[1], m["old"].strip(), m["new"], m.start())
            for m in _RUNNING.finditer(self.text)
            if not any(begin <= m.start() < end for begin, end in scripts)
        )

    @cached_property
    def frames(self) -> tuple[tuple[str, str], ...]:
        """(file name, function) of every traceback line in a ``versions`` folder."""
        return tuple((m["file"], m["function"]) for m in _FRAME.finditer(self.text))

    @cached_property
    def context(self) -> frozenset[str]:
        """What the text is about: ``upgrade``, ``downgrade``, ``alembic``; ``runtime`` if none of them."""
        about = {run.direction for run in self.running[-1:]} | {
            name for _, name in self.frames if name in ("upgrade", "downgrade")
        }
        if about or "alembic." in self.text or "/alembic/" in self.text or "\\alembic\\" in self.text:
            return frozenset(about | {"alembic", "any"})
        return frozenset({"runtime", "any"})

    @cached_property
    def commits_midway(self) -> bool:
        """Whether the failed statement, or a frame, shows that earlier operations of the revision were committed."""
        return "autocommit_block" in self.text or any(_CONCURRENT.search(s) for s in self.statements)

    @cached_property
    def statements(self) -> tuple[str, ...]:
        """The SQL that the text quotes: SQLAlchemy's ``[SQL: ...]``, a server log's ``STATEMENT:``."""
        return tuple(next(filter(None, m.groups())) for m in _STATEMENT.finditer(self.text))

    @cached_property
    def pids(self) -> tuple[int, ...]:
        """Backends that a deadlock's DETAIL names, in order."""
        return tuple(dict.fromkeys(int(pid) for match in _WAITING.finditer(self.text) for pid in match.groups()))

    def revision(self) -> str:
        """The revision that the text is about: the last one run, else the one whose file is in the traceback; '' if none."""
        if self.running:
            return self.running[-1].revision
        return next((m[1] for file, _ in reversed(self.frames) if (m := re.match(r"([0-9a-f]{12})_", file))), "")

    def down_to(self) -> str:
        """Where the downgrade that the text ends with was to go, as its command said, else as far as it ran; '' for one step."""
        if self.running and self.running[-1].direction != "downgrade":
            return ""
        commands = _DOWNGRADE.findall(self.text)
        if commands:
            return "" if commands[-1] == "-1" else str(commands[-1])
        return (self.running[-1].new or "base") if self.running else ""

    def taken_back(self) -> str:
        """The revision that the text ends with upgrading, and that it shows taken back just before; '' if none."""
        last, earlier = (self.running[-1], self.running[-2]) if len(self.running) > 1 else (None, None)
        if last and earlier and (last.direction, earlier.direction) == ("upgrade", "downgrade"):
            return last.revision if earlier.revision == last.revision else ""
        return ""

    def run_again(self) -> str:
        """A revision whose upgrade the text shows twice in a row with no error between; '' if none.

        One that starts from the base is left out: a test suite migrates many empty databases.
        """
        for one, next_ in zip(self.running, self.running[1:], strict=False):
            same = (
                one.old
                and (one.direction, one.old, one.new) == (next_.direction, next_.old, next_.new)
                and one.direction == "upgrade"
            )
            if same and not _TROUBLE.search(self.text, one.at, next_.at):
                return one.new
        return ""

    def around(self, at: int) -> dict[str, str]:
        """Names that stand near a message: key columns in its DETAIL, verbose fields, the table of the statement it quotes."""
        near = self.text[at : at + 4000]
        names = {field.lower(): value.strip() for field, value in _FIELD.findall(near)}
        if "column" in names:
            names["columns"] = names.pop("column")
        if key := _KEY.search(near):
            names.setdefault("columns", key["columns"])
        if absent := _ABSENT.search(near):
            names["parent"] = absent["parent"]
        quoted = _STATEMENT.search(self.text, at)
        statement = next(filter(None, quoted.groups())) if quoted else ""
        if table := _TABLE.search(statement):
            names.setdefault("table", table[1].replace('"', ""))
        if key := _REFERS.search(statement):
            names |= {"constraint": key[1], "columns": key["columns"], "parent": key[3] + (key["keys"] or "")}
        if "schema" in names and "table" in names and "." not in names["table"]:
            names["table"] = f"{names['schema']}.{names['table']}"
        names.pop("schema", None)
        return names


def read(text: str) -> ErrorText:
    """A text without colours, log prefixes and escaping, ready to be searched."""
    text = text[-LONGEST:].replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    text = _ANSI.sub("", text)
    text = text.replace("\\n", "\n").replace('\\"', '"')
    return ErrorText(_PREFIX.sub("", text))
