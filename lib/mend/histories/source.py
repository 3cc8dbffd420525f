"""A Python file as text, and places to add to it: nothing of what is there is ever changed or removed."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Sequence

Insertion = tuple[int, str]
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_SILENT = {tokenize.NL, tokenize.COMMENT}


class Source:
    """One file's text, with positions by line and (as ast counts) byte column.

    Raises: SyntaxError where Python cannot read it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self.lines: list[str] = _LINE.findall(text)
        self._starts = [0]
        for line in self.lines:
            self._starts.append(self._starts[-1] + len(line))
        self.newline = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
        self._tokens = list(tokenize.generate_tokens(io.StringIO(text, newline="").readline))

    def _offset(self, line: int, byte_column: int) -> int:
        return self._starts[line - 1] + len(self.lines[line - 1].encode()[:byte_column].decode())

    def _token_offset(self, place: tuple[int, int]) -> int:
        return self._starts[place[0] - 1] + place[1]

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        return self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno or 0, node.end_col_offset or 0)

    def written(self, node: ast.expr) -> str:
        """The node as it is written."""
        start, end = self._span(node)
        return self.text[start:end]

    def segment(self, node: ast.expr) -> str:
        """The node on one line, as it is written if it is on one."""
        written = self.written(node)
        return ast.unparse(node) if "\n" in written or "\r" in written else written

    def indent(self, line: int) -> str:
        """The white space that a line begins with."""
        text = self.lines[line - 1]
        return text[: len(text) - len(text.lstrip(" \t\f"))]

    def alone(self, statement: ast.stmt) -> bool:
        """Whether a statement shares none of its lines with another one."""
        start, end = self._span(statement)
        before, after = (
            self.text[self._starts[statement.lineno - 1] : start],
            self.text[end : self._starts[statement.end_lineno or 0]].strip(),
        )
        return not before.strip() and (not after or after.startswith("#"))

    def keyword(self, call: ast.Call, argument: str) -> Insertion:
        """Add a keyword argument as the last one, in the style of the call: on a line of its own where the others have theirs."""
        end = self._span(call)[1] - 1
        closing = next(
            n for n, token in enumerate(self._tokens) if token.string == ")" and self._token_offset(token.start) == end
        )
        last = next(token for token in reversed(self._tokens[:closing]) if token.type not in _SILENT)
        if last.string != ",":
            return self._token_offset(last.end), f", {argument}"
        if not self.lines[(call.end_lineno or 0) - 1].lstrip().startswith(")") or call.end_lineno == last.end[0]:
            return self._token_offset(last.end), f" {argument}"
        first = call.args[0] if call.args else call.keywords[0].value
        indent = self.indent(first.lineno if first.lineno > call.lineno else last.start[0])
        return self._starts[last.end[0]], f"{indent}{argument},{self.newline}"

    def before(self, statement: ast.stmt, lines: Iterable[str]) -> Insertion:
        """Add lines before a statement that stands ``alone``, as far in as it is."""
        indent = self.indent(statement.lineno)
        return self._starts[statement.lineno - 1], "".join(f"{indent}{line}{self.newline}" for line in lines)

    def deeper(self, statement: ast.stmt, unit: str) -> list[Insertion]:
        """Move a statement in by one unit; lines that begin inside a string stay as they are."""
        inside = {row for token in self._tokens for row in range(token.start[0] + 1, token.end[0] + 1)}
        rows = range(statement.lineno, (statement.end_lineno or 0) + 1)
        return [(self._starts[row - 1], unit) for row in rows if row not in inside and self.lines[row - 1].strip()]

    def with_insertions(self, insertions: Sequence[Insertion]) -> str:
        """The text with these additions; several at one place come in the order given."""
        parts, reached = [], 0
        for offset, added in sorted(insertions, key=lambda one: one[0]):
            parts += [self.text[reached:offset], added]
            reached = offset
        return "".join([*parts, self.text[reached:]])
