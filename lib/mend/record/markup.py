"""The pieces that everything shown is put together from; every value is escaped here and nowhere else."""

from __future__ import annotations

import functools
import html
import importlib.resources
import math
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

ROWS = 20  # more are counted, not shown: a record is no place for a table's content
_LONGEST = 400  # characters of one value
_LONGEST_WORD = 24  # letters; a longer one may be broken anywhere, so that a table keeps to the page
_COLUMNS = 100  # of a table in a log or a file
_CODE_COLUMNS = {
    "sql",
    "definition",
    "before",
    "after",
    "objects",
    "operation",
    "identity",
    "query",
    "lock",
    "mode",
    "relation",
}
_TONES = {
    "healthy": "ok", "completed": "ok", "applied": "ok", "whole": "ok", "DONE": "ok", "yes": "ok",
    "found": "warn", "planned": "note", "DIFFERENT": "bad", "INVALID": "bad", "failed": "bad", "unknown": "bad",
    "NOT_DONE": "warn", "interrupted": "warn", "refused": "warn", "could_not_check": "bad", "not_asked": "note", "DATA": "note",
}  # fmt: skip
_STATE_COLUMNS = {"state", "verdict", "outcome"}
_ID_COLUMNS = {"revision", "down_revision", "version_num", "pid", "sqlstate"}  # never wrapped: they are copied


@dataclass(frozen=True)
class Shown:
    """Something to look at: HTML for a browser and the same facts as text."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


@functools.cache
def style(name: str = "fragment") -> str:
    """A style sheet of ours."""
    return importlib.resources.files("mend").joinpath("styles", f"{name}.css").read_text(encoding="utf-8").strip()


def style_element() -> str:
    """The one style element that every fragment carries; a page with a style sheet of its own takes it out."""
    return f"<style>{style()}</style>"


def shown(parts: Iterable[str], text: str) -> Shown:
    """A fragment from escaped parts."""
    return Shown(f'{style_element()}<div class="mend">{"".join(parts)}</div>', text.rstrip())


def joined(*parts: Shown | None) -> Shown:
    """Fragments one below the other."""
    there = [part for part in parts if part is not None]
    return Shown("".join(part.html for part in there), "\n".join(part.text for part in there))


def escape(value: Any) -> str:
    """Text that is only text: no tag, no attribute end, and no invisible character that reorders what is read."""
    return html.escape("".join(c if c.isprintable() or c in "\n\t " else f"\\u{ord(c):04x}" for c in str(value)))


def badge(word: str) -> str:
    """A state as a word in its colour."""
    return f'<span class="mend-badge mend-{_TONES.get(word, "none")}">{escape(word.replace("_", " ").upper())}</span>'


def tone(word: str) -> str:
    """ok, note, warn, bad or none."""
    return _TONES.get(word, "none")


def paragraph(text: str, kind: str = "") -> str:
    """One paragraph; ``kind`` is says, dim, title, ..."""
    return f"<p{_class(kind)}>{escape(text)}</p>" if text else ""


def box(kind: str, parts: Iterable[str]) -> str:
    """A bordered block in the colour of a state."""
    return f'<div class="mend-box mend-{kind}">{"".join(parts)}</div>'


def sql(text: str) -> str:
    """SQL, or any code, as it is."""
    return f"<pre>{escape(text.strip())}</pre>"


def folded(summary: str, content: str) -> str:
    """Content behind one click."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _class(kind: str) -> str:
    return f' class="mend-{kind}"' if kind else ""


def value(raw: Any) -> str:
    """One value as text; NULL where there is none."""
    if raw is None or (isinstance(raw, float) and math.isnan(raw)) or type(raw).__name__ in ("NaTType", "NAType"):
        return "NULL"
    if isinstance(raw, bool):
        return "yes" if raw else "no"
    if isinstance(raw, float):
        return f"{raw:,.3f}".rstrip("0").rstrip(".")
    if isinstance(raw, (list, tuple, set)):
        return ", ".join(value(item) for item in raw)
    text = str(raw)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"


def _cell(column: str, raw: Any) -> str:
    text = value(round(raw, 1) if column.endswith("_s") and isinstance(raw, float) and raw >= 1 else raw)
    if text == "NULL":
        return '<td class="mend-null">NULL</td>'
    if column in _STATE_COLUMNS and text in _TONES:
        return f"<td>{badge(text)}</td>"
    kind = "id" if column in _ID_COLUMNS else "number" if _is_number(raw) else "mono" if column in _CODE_COLUMNS else ""
    if not kind and max(map(len, text.split()), default=0) > _LONGEST_WORD:
        kind = "long"
    return f"<td{_class(kind)}>{escape(text)}</td>"


def _is_number(raw: Any) -> bool:
    return isinstance(raw, (int, float)) and not isinstance(raw, bool)


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, total: int | None = None) -> str:
    """At most ROWS rows, and how many more there are."""
    if not columns:
        return ""
    visible = rows[:ROWS]
    numeric = {
        c
        for c in columns
        if any(_is_number(row.get(c)) for row in visible)
        and all(_is_number(row.get(c)) or row.get(c) is None for row in visible)
    }
    head = "".join(f"<th{_class('number' if c in numeric else '')}>{escape(c.replace('_', ' '))}</th>" for c in columns)
    body = "".join("<tr>" + "".join(_cell(c, row.get(c)) for c in columns) + "</tr>" for row in visible)
    count = len(rows) if total is None else total
    more = f'<p class="mend-dim">and {count - len(visible):,} more</p>' if count > len(visible) else ""
    empty = "" if count else '<p class="mend-dim">no rows</p>'
    return f'<div class="mend-scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}{empty}'


def facts(pairs: Mapping[str, str]) -> str:
    """Short facts in one line: name and value; empty ones are left out."""
    return (
        '<div class="mend-facts">'
        + "".join(f"<span>{escape(k)} <b>{escape(v)}</b></span>" for k, v in pairs.items() if v)
        + "</div>"
    )


def plain_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, total: int | None = None) -> str:
    """The same as aligned text; a cell too long for the width goes on below, and nothing is cut off."""
    lines = [[c.replace("_", " ") for c in columns]]
    lines += [[value(row.get(c)) for c in columns] for row in rows[:ROWS]]
    widths = _widths(lines, _width() - 2 * (len(columns) - 1))
    text = "\n".join(_wrapped(line, widths) for line in lines)
    count = len(rows) if total is None else total
    return text + (f"\nand {count - ROWS:,} more" if count > ROWS else "")


def _width() -> int:
    """Of the terminal that is written to; 100 where there is none."""
    try:
        return max(80, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError, AttributeError):  # no terminal, or a stream that is none of the system's
        return _COLUMNS


def _widths(lines: Sequence[Sequence[str]], room: int) -> list[int]:
    """What each column gets: all that it needs, or an equal share of what the others leave."""
    needed = [
        max(len(part) for cell in column for part in [*cell.splitlines(), ""]) for column in zip(*lines, strict=True)
    ]
    given: dict[int, int] = {}
    for n in sorted(range(len(needed)), key=needed.__getitem__):
        given[n] = min(needed[n], max(8, (room - sum(given.values())) // (len(needed) - len(given))))
    return [given[n] for n in range(len(needed))]


def _wrapped(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        [piece for part in cell.splitlines() for piece in textwrap.wrap(part, max(width, 1)) or [""]]
        for cell, width in zip(line, widths, strict=True)
    ]
    return "\n".join(
        "  ".join(piece.ljust(width) for piece, width in zip(pieces, widths, strict=True)).rstrip()
        for pieces in zip_longest(*cells, fillvalue="")
    )
