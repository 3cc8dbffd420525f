"""PostgreSQL's lexical rules, applied to SQL that an operator typed: what cannot be read with certainty is refused.  Pure.

`names` and `sqltext` read what PostgreSQL or a revision wrote, and may be lenient.  Here the text is put between parentheses of
our own, so whether a quote is closed must be known exactly: a second opinion about it (another setting of
standard_conforming_strings, an E'' string continued on the next line, a dollar quote) could hide what runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

LONGEST = 10_000  # characters
DEEPEST = 20  # brackets in brackets

Kind = Literal["word", "name", "string", "number", "operator", "mark"]


class Unreadable(ValueError):
    """What stands in the text that is refused, and why; one sentence without its full stop."""


@dataclass(frozen=True)
class Token:
    """One token. ``text`` is as typed; ``value`` is what a name means to PostgreSQL: folded, or without its quotes."""

    kind: Kind
    text: str
    at: int

    @property
    def value(self) -> str:
        if self.kind == "word":  # PostgreSQL folds ASCII letters only, where the encoding is UTF-8
            return re.sub("[A-Z]+", lambda upper: upper[0].lower(), self.text)
        return self.text[1:-1].replace('""', '"') if self.kind == "name" else self.text


_LEXER = re.compile(
    r"""
      (?P<space>[ \t\n\r\f]+)
    | (?P<comment>--|/\*)
    | (?P<unicode>[uU]&['"])
    | (?P<string>[eE]'(?:[^'\\]|\\.|'')*+'|[bBxXnN]?'(?:[^']|'')*+')
    | (?P<name>"(?:[^"]|"")++")
    | (?P<open>[eEbBxXnN]?['"])
    | (?P<dollar>\$)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<number>(?:0[xXoObB][0-9a-fA-F_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)?)(?![\w.]))
    | (?P<mark>::|[()\[\],.;:])
    | (?P<operator>[-+*/<>=~!@\#%^&|`?]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_WHY = {
    "comment": "a comment stands in it",
    "unicode": "U& strings and names are not accepted: write the characters themselves",
    "open": "a quote is not closed",
    "dollar": "a dollar sign stands in it: write texts in single quotes; there are no parameters",
}
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a text, without the space between them.

    Raises: Unreadable for comments, semicolons, parameters, unclosed quotes and brackets, invisible characters, and what else has no
    business in an expression or could be read in two ways.
    """
    _check_characters(text)
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _LEXER.match(text, at)
        if match is None:
            raise Unreadable(f"{_shown(text[at])} at character {at + 1} is not SQL; a text stands in single quotes")
        _add(found, str(match.lastgroup), match[0], at)
        at = match.end()
    _check_brackets(found)
    return tuple(found)


def parts(found: tuple[Token, ...], text: str) -> tuple[tuple[int, int], ...]:
    """Where the pieces between the top-level commas begin and end in the text."""
    depth, cuts = 0, []
    for token in found:
        depth += (token.text in "([") - (token.text in ")]") if token.kind == "mark" else 0
        if token.kind == "mark" and token.text == "," and depth == 0:
            cuts.append(token.at)
    return tuple(zip([0, *(cut + 1 for cut in cuts)], [*cuts, len(text)], strict=True))


def _check_characters(text: str) -> None:
    if not text.strip():
        raise Unreadable("it is empty")
    if len(text) > LONGEST:
        raise Unreadable(f"it has {len(text):,} characters; {LONGEST:,} are accepted")
    hidden = _INVISIBLE.search(text)
    if hidden:
        raise Unreadable(
            f"the invisible character U+{ord(hidden[0]):04X} stands in it: what is reviewed must be what runs"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unreadable("a character in it is none (half of a surrogate pair)") from error


def _add(found: list[Token], group: str, text: str, at: int) -> None:
    if group in _WHY:
        raise Unreadable(_WHY[group])
    if group == "string" and found and found[-1].kind == "string":
        raise Unreadable("two texts stand side by side: join them with ||")  # on two lines PostgreSQL makes them one
    if group in ("word", "name") and len(text.encode()) > 63 + 2 * (group == "name"):
        raise Unreadable(f"the name {text[:20]}… is longer than the 63 bytes of a name")
    if group == "operator":
        found += _operators(text, at)
    elif group != "space":
        _check_mark(text)
        found.append(Token(group, text, at))  # type: ignore[arg-type]  # the regular expression has no other groups


def _check_mark(text: str) -> None:
    if text == ";":
        raise Unreadable("a semicolon stands in it: one expression, not statements")
    if text == ":":
        raise Unreadable("a single colon stands in it: there are no parameters and no slices")


def _operators(text: str, at: int) -> list[Token]:
    """One run of operator characters as PostgreSQL cuts it: a longer operator ends in + or - only if it has one of ~!@#%^&|`?."""
    if "--" in text or "/*" in text:
        raise Unreadable(_WHY["comment"])
    if text in ("=>", "->*"):
        raise Unreadable("arguments by name (=>) are not accepted")
    found = []
    while text:
        end = len(text)
        while end > 1 and text[end - 1] in "+-" and not set(text[: end - 1]) & set("~!@#%^&|`?"):
            end -= 1
        found.append(Token("operator", text[:end], at))
        text, at = text[end:], at + end
    return found


def _check_brackets(found: list[Token]) -> None:
    closing = {")": "(", "]": "["}
    open_: list[str] = []
    for token in found:
        if token.kind == "mark" and token.text in "([":
            open_.append(token.text)
            if len(open_) > DEEPEST:
                raise Unreadable(f"its brackets are nested more than {DEEPEST} deep")
        elif token.kind == "mark" and token.text in closing and (not open_ or open_.pop() != closing[token.text]):
            raise Unreadable("a bracket is closed that was not opened")
    if open_:
        raise Unreadable("a bracket is not closed")


def _shown(character: str) -> str:
    return f"{character!r} (U+{ord(character):04X})"
