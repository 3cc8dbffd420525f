"""A statement's text with its tokens, to be read from left to right by whoever takes it apart.  Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mend.values import lexical
from mend.values.lexical import Token


class Unknown(ValueError):
    """Why a statement's rows cannot be named; a clause for "because"."""


@dataclass(frozen=True)
class Text:
    """A text with its tokens, and how deep in brackets each is."""

    sql: str
    tokens: Sequence[Token]

    def top(self, start: int = 0) -> list[int]:
        """The tokens that stand in no bracket."""
        depth, found = 0, []
        for n in range(start, len(self.tokens)):
            text = self.tokens[n].text if self.tokens[n].kind == "mark" else ""
            depth -= text in (")", "]")
            if depth == 0:
                found.append(n)
            depth += text in ("(", "[")
        return found

    def word(self, n: int) -> str:
        """The token as a keyword, '' where it cannot be one."""
        return self.tokens[n].value if n < len(self.tokens) and self.tokens[n].kind == "word" else ""

    def mark(self, n: int) -> str:
        return self.tokens[n].text if n < len(self.tokens) and self.tokens[n].kind in ("mark", "operator") else ""

    def between(self, start: int, end: int) -> str:
        """The text from one token to before another."""
        if start >= min(end, len(self.tokens)):
            return ""
        stop = self.tokens[end].at if end < len(self.tokens) else len(self.sql)
        return self.sql[self.tokens[start].at : stop].strip()

    def part(self, start: int, end: int) -> Text:
        text = self.between(start, end)
        return Text(text, lexical.tokens(text) if text else ())

    def parts(self, cuts: Sequence[int]) -> list[Sequence[Token]]:
        edges = [-1, *cuts, len(self.tokens)]
        return [self.tokens[a + 1 : b] for a, b in itertools.pairwise(edges)]

    def name(self, n: int) -> tuple[str, int]:
        """A dotted name, and where the text goes on."""
        start = n
        if n >= len(self.tokens) or self.tokens[n].kind not in ("word", "name"):
            raise Unknown("it cannot be read")
        while self.mark(n + 1) == "." and n + 2 < len(self.tokens):
            n += 2
        return re.sub(r"\s", "", self.between(start, n + 1)) if '"' not in self.between(start, n + 1) else self.between(
            start, n + 1
        ), n + 1

    def alias(self, n: int, ends: Sequence[str]) -> tuple[str, int]:
        """``[*] [as] name``."""
        n += self.mark(n) == "*"
        if self.word(n) == "as":
            return self.tokens[n + 1].value, n + 2
        if n < len(self.tokens) and self.tokens[n].kind in ("word", "name") and self.word(n) not in ends:
            return self.tokens[n].value, n + 1
        return "", n
