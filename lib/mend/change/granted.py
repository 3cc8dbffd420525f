"""What default privileges would add to, or keep from, an object that is made anew: it is to have the grants that it had.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from mend.database import names
from mend.database.catalog import Change

#: By kind: the word of a grant, and that of a default privilege.
_WORDS = {
    "table": ("table", "tables"), "view": ("table", "tables"), "matview": ("table", "tables"), "foreign_table": ("table", "tables"),
    "sequence": ("sequence", "sequences"), "function": ("routine", "routines"), "aggregate": ("routine", "routines"),
    "enum": ("type", "types"), "domain": ("type", "types"), "composite": ("type", "types"), "range": ("type", "types"),
    "schema": ("schema", "schemas"),
}  # fmt: skip
_USUAL = {"routine": "EXECUTE", "type": "USAGE"}  # what PUBLIC has unless somebody takes it away
_DEFAULT = re.compile(
    r"for (?:.+?)(?: in (?P<schema>.+))? on (?P<kinds>tables|sequences|routines|types|schemas) to (?P<role>.+)"
)


def with_its_own(
    texts: Sequence[str], changes: Iterable[Change], wanted: Mapping[tuple[str, str], str]
) -> tuple[str, ...]:
    """The SQL of these changes, so that the objects that it makes have no other grants than in ``wanted``, the catalog by then.

    Before the first grant: to revoke from a whole table takes what was granted on its columns too.
    """
    at = next((n for n, text in enumerate(texts) if text.startswith(("grant ", "revoke "))), len(texts))
    return (*texts[:at], *_evened_out(changes, wanted), *texts[at:])


def _evened_out(changes: Iterable[Change], wanted: Mapping[tuple[str, str], str]) -> tuple[str, ...]:
    """Which role makes the objects is not asked: to revoke what nobody was granted does nothing."""
    defaults = [(m, text) for (kind, i), text in wanted.items() if kind == "default_privilege" and (m := _DEFAULT.fullmatch(i))]  # fmt: skip
    found: dict[str, None] = {}
    for c in changes:
        if c.before is not None or c.after is None or c.kind not in _WORDS:
            continue
        word, kinds = _WORDS[c.kind]
        for default, text in defaults:
            if default["kinds"] == kinds and default["schema"] in (None, names.parent(names.bare(c.identity))):
                found |= dict.fromkeys(_evened(f"{word} {c.identity}", default["role"], text, wanted))
    return tuple(found)


def _evened(label: str, role: str, text: str, wanted: Mapping[tuple[str, str], str]) -> Iterable[str]:
    word, _, name = label.partition(" ")
    there = wanted.get(("grant", f"{label} to {role}"))
    if text == "none":
        if there is None and role == "public" and word in _USUAL:
            yield f"grant {_USUAL[word]} on {label} to public"
        return
    has = set(there.split(", ")) if there else set()
    plain = {one.removesuffix(_OPTION) for one in has}
    extra = [one.removesuffix(_OPTION) for one in text.split(", ") if one.removesuffix(_OPTION) not in plain]
    if there is None and role == "public":
        extra = [one for one in extra if one != _USUAL.get(word)]
    options = [one.removesuffix(_OPTION) for one in text.split(", ") if one.endswith(_OPTION) and one not in has]
    if extra:
        yield f"revoke {', '.join(extra)} on {word} {name} from {role}"
    if options := [one for one in options if one not in extra]:
        yield f"revoke grant option for {', '.join(options)} on {word} {name} from {role}"


_OPTION = " with grant option"
