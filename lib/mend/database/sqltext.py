"""SQL text in a normal form, and the patterns to read it by. Pure; it knows quoting and comments, not PostgreSQL's grammar."""

from __future__ import annotations

import re

# What is cut off in the middle (pg_stat_activity keeps so many bytes of a statement) goes on to the end of the text.
_LEXER = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))|(?P<string>[Ee]'(?:[^'\\]|\\.|'')*(?:'|\Z)|[BbXxNn]?'(?:[^']|'')*(?:'|\Z)"""
    r"""|\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z))"""
    r"""|(?P<name>"(?:[^"]|"")*")|(?P<word>[^\W\d][\w$]*)|(?P<space>\s+)|(?P<other>\d[\w.]*|.)""",
    re.DOTALL,
)
#: A name, dotted or not; one part of it; and what may stand before it.
NAME = r'(?:"(?:[^"]|"")*"|[^\W\d][\w$]*)(?:\.(?:"(?:[^"]|"")*"|[^\W\d][\w$]*))*'
PART = r'(?:"(?:[^"]|"")*"|[^\W\d][\w$]*)'
IF = r"(?:if (?:not )?exists )?"


def statements(sql: str) -> list[str]:
    """Each statement in a normal form: lower case, single spaces, no comments; strings are emptied, quoted names kept.

    >>> statements('ALTER  TABLE "T" -- why\\n SET (fillfactor = 70); SELECT \\'x;y\\'')
    ['alter table "T" set ( fillfactor = 70 )', "select ''"]
    """
    found: list[list[str]] = [[]]
    for token in _LEXER.finditer(_without_nested_comments(sql)):
        if token.lastgroup == "other" and token[0] == ";":
            found.append([])
        elif token.lastgroup not in ("comment", "space"):
            text = "''" if token["string"] else token[0] if token["name"] else token[0].lower()
            found[-1].append(text)
    return [re.sub(r" ?\. ?", ".", " ".join(words)) for words in found if words]


def shape(sql: str) -> str:
    """A statement without the values in it: strings are emptied, numbers become 0; names and words stay.

    >>> shape("update t set email = 'ann@b.co' where id = 17 -- x")
    "update t set email = '' where id = 0"
    >>> shape(r"select E'it\\'s secret', 'cut off in the mid")
    "select '', ''"
    """
    found = []
    for token in _LEXER.finditer(_without_nested_comments(sql)):
        if token.lastgroup == "comment":
            continue
        text = token[0]
        found.append("''" if token["string"] else "0" if token.lastgroup == "other" and text[0].isdigit() else text)
    return "".join(found).strip()


def without_comments(sql: str) -> str:
    """The text with a space in place of each comment.

    >>> without_comments("select 1 /* a /* b */ */, '--' -- c")
    "select 1  , '--'  "
    """
    return "".join(
        " " if token.lastgroup == "comment" else token[0] for token in _LEXER.finditer(_without_nested_comments(sql))
    )


_CHANGES_ROWS = frozenset(
    ["insert", "update", "delete", "merge", "truncate", "do", "call", "execute", "copy", "select", "with"]
)


def guarded(sql: str) -> bool:
    """Whether the text passes over what is there already (IF EXISTS, IF NOT EXISTS, OR REPLACE)."""
    return any(re.search(r"\bif (not )?exists\b|\bor replace\b", text) for text in statements(sql))


def may_change_rows(sql: str) -> bool:
    """Whether any statement of a text that was sent for its effect may change rows: DML, DO, CALL, a SELECT of a function.

    >>> may_change_rows("create table t (a int); delete from u"), may_change_rows("alter table t add b int")
    (True, False)
    """
    return any(text.split(" ", 1)[0] in _CHANGES_ROWS for text in statements(sql))


def _without_nested_comments(sql: str) -> str:
    """PostgreSQL nests /* */; take the innermost away until only plain ones are left."""
    inner = re.compile(r"(?<=/\*)((?:(?!/\*|\*/).)*)/\*(?:(?!/\*|\*/).)*\*/", re.DOTALL)
    while inner.search(sql):
        sql = inner.sub(r"\1", sql)
    return sql


def actions(text: str) -> list[str]:
    """Split at the commas that stand outside parentheses."""
    depth, found = 0, [""]
    for word in text.split(" "):
        depth += (word == "(") - (word == ")")
        if word == "," and depth == 0:
            found.append("")
        else:
            found[-1] += word + " "
    return [action.strip() for action in found]
