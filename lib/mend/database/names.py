"""One small tokenizer for what PostgreSQL prints: dotted, quoted names, in identities and inside definitions. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

#: A string, a quoted name, a bare name, a number, or any other single character. Names keep their quotes: PostgreSQL quotes
#: a name always or never, so that equal names are equal texts.
TOKEN = re.compile(
    r"""(?P<string>[EeBbXx]?'(?:[^']|'')*')|(?P<name>"(?:[^"]|"")*"|[^\W\d][\w$]*)|(?P<other>\d[\w.]*|\s+|.)""",
    re.DOTALL,
)


@functools.lru_cache(maxsize=100_000)
def split(identity: str) -> tuple[str, ...]:
    """The dotted parts, still quoted; a function's arguments stay with its name.

    >>> split('public."we.ird".a')
    ('public', '"we.ird"', 'a')
    >>> split('public.f(app.mood, integer)')
    ('public', 'f(app.mood, integer)')
    """
    parts, depth = [""], 0
    for token in TOKEN.finditer(identity):
        depth += (token[0] == "(") - (token[0] == ")")
        if token[0] == "." and depth == 0:
            parts.append("")
        else:
            parts[-1] += token[0]
    return tuple(parts)


def parent(identity: str) -> str:
    """Everything but the last part: the table of a column, the schema of a table."""
    return ".".join(split(identity)[:-1])


def last(identity: str) -> str:
    """The last part: the column's own name, the function's with its arguments."""
    return split(identity)[-1]


def of_version_table(table: str, identity: str) -> bool:
    """Whether an object belongs to a version table of this name: the table and all that is on it, its key's index.

    >>> [of_version_table("version", one) for one in ("public.version.version_num", "public.users.version")]
    [True, False]
    """
    parts = split(identity)
    return len(parts) > 1 and unquoted(pieces(parts[1])[0]) in (table, f"{table}_pkc")


def bare(identity: str) -> str:
    """A function's identity without its arguments; any other identity as it is."""
    *holders, name = split(identity)
    return ".".join([*holders, name.partition("(")[0] if not name.startswith('"') else _quoted(name)])


def spaced(text: str) -> list[str]:
    """The words, names and other characters of a piece of SQL, spaces too; each parenthesis with its whole content is one."""
    found, depth = [""], 0
    for token in TOKEN.finditer(text):
        depth -= token[0] == ")"
        if depth == 0 and token[0] != ")":
            found.append("")
        found[-1] += token[0]
        depth += token[0] == "("
    return found[1:]


def pieces(text: str) -> list[str]:
    """``spaced`` without the spaces.

    >>> pieces('UNIQUE NULLS NOT DISTINCT (a, "b)") DEFERRABLE')
    ['UNIQUE', 'NULLS', 'NOT', 'DISTINCT', '(a, "b)")', 'DEFERRABLE']
    """
    return [piece for piece in spaced(text) if not piece.isspace()]


def items(group: str) -> tuple[str, ...]:
    """What stands between the commas of a parenthesis.

    >>> items('(lower((a)::text), "b,c" DESC)')
    ('lower((a)::text)', '"b,c" DESC')
    """
    found = [""]
    for piece in spaced(group[1:-1]):
        if piece == ",":
            found.append("")
        else:
            found[-1] += piece
    return tuple(item.strip() for item in found)


def unquoted(name: str) -> str:
    """The name itself.

    >>> unquoted('"a""b"'), unquoted("a")
    ('a"b', 'a')
    """
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def chains(text: str) -> Iterator[str]:
    """Every dotted name in a piece of SQL, outside strings: ``public.t.c``, and bare ones: ``c``."""
    chain: list[str] = []
    joined = False
    for token in TOKEN.finditer(text):
        if token.lastgroup == "name" and (joined or not chain):
            chain.append(token[0])
            joined = False
        elif token[0] == "." and chain and not joined:
            joined = True
        else:
            if chain:
                yield ".".join(chain)
            chain, joined = ([token[0]], False) if token.lastgroup == "name" else ([], False)
    if chain:
        yield ".".join(chain)


def mentions(text: str) -> frozenset[str]:
    """Every name in a piece of SQL, with each of its beginnings: ``public.t.c`` mentions ``public.t`` and ``public`` too."""
    found: set[str] = set()
    for chain in chains(text):
        parts = split(chain)
        found.update(".".join(parts[:n]) for n in range(1, len(parts) + 1))
    return frozenset(found)


def words(text: str) -> frozenset[str]:
    """Every single name in a piece of SQL, however it is qualified."""
    return frozenset(part for chain in chains(text) for part in split(chain))


def substitute(text: str, old: str, new: str) -> str:
    """``text`` with the name ``old`` replaced wherever it stands: as a whole, as the beginning of a longer one, or bare.

    >>> substitute("CREATE INDEX ix ON public.t USING btree (a)", "public.t", "public.u")
    'CREATE INDEX ix ON public.u USING btree (a)'
    >>> substitute("CHECK ((a > 0))", "public.t.a", "public.t.b")
    'CHECK ((b > 0))'
    """
    old_parts, new_parts = split(old), split(new)
    pieces = [match[0] for match in TOKEN.finditer(text)]
    done, at = "", 0
    while at < len(pieces):
        width = 2 * len(old_parts) - 1
        qualified = at == 0 or pieces[at - 1] != "."
        if qualified and "".join(pieces[at : at + width]) == old:
            done, at = done + new, at + width
        elif qualified and pieces[at] == old_parts[-1] and pieces[at + 1 : at + 2] != ["."]:
            done, at = done + new_parts[-1], at + 1
        else:
            done, at = done + pieces[at], at + 1
    return done


def _quoted(name: str) -> str:
    """The quoted name that a text begins with."""
    match = TOKEN.match(name)
    return match[0] if match else name
