"""Looks for secrets in the files of a record, in every spelling that JSON and HTML give them.

Found are the secrets that are known (the target's password), the password of any address, and ``password=`` with a value,
and SQL's ``password '...'`` (CREATE ROLE, CREATE USER MAPPING).
A secret that is also a plain word of the record (a password ``postgres``) is looked for only where it stands as a password.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path

SHORT = 6  # shorter secrets occur by chance
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.]*://[^\s:/@'\"<>\\]*:(?P<secret>[^\s@'\"<>\\/]+)@", re.IGNORECASE)
_KEYWORD = re.compile(r"\b(?:pg)?password=(?P<quote>\\?['\"])?(?P<secret>[^\s'\"&\\<>;,)]+)", re.IGNORECASE)
# what stands after password= in code and SQL without being one: a placeholder, an empty value, a name that is read elsewhere
_HARMLESS = re.compile(
    r"\*+|x{3,}|…|\.{3}|null|none|true|false|not|:\w+|\$\d+|\$?\{.*|%.*|\?|[a-z_][\w.]*[(\[].*|self\.\w+|os\..*|settings\.\w+",
    re.IGNORECASE,
)
# CREATE ROLE .. PASSWORD '..', OPTIONS (password '..'): as SQL, within JSON (a quote or a line's end escaped), or coloured in HTML
_IN_SQL = re.compile(
    r"(?:(?<!\w)|(?<=\\[nrt]))password(?:\s|\\+[nrt]|<[^<>]*>)+(?:e|u&)?(?:\\*'(?P<secret>[^'\n]{1,500})'|\$(?P<tag>\w*)\$(?P<dollar>[^\n]{1,500}?)\$(?P=tag)\$)",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"[\s,;:()|.=]*|\*+|x{3,}|…|\.{3}|:\w+|%s|%\(\w+\)s|\$\d+|\{\w*\}|\?", re.IGNORECASE)


def scan(folder: Path, *, secrets: Iterable[str], words: Collection[str] = ()) -> str:
    """The name of the first file that holds a secret, or ''.

    Parameters
    ----------
    secrets : passwords that are known
    words : what a record says anyway (role, database, host); a secret that is one of them counts only as a password
    """
    known = {secret for secret in secrets if secret}
    plain = {
        secret for secret in known if len(secret) < SHORT or secret.casefold() in {word.casefold() for word in words}
    }
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if leaks(path.read_text(encoding="utf-8", errors="replace"), known - plain, plain):
            return path.relative_to(folder).as_posix()
    return ""


def leaks(text: str, secrets: Collection[str], plain: Collection[str] = ()) -> bool:
    """Whether a text holds one of the secrets, or anything that stands as a password."""
    if any(spelling in text for secret in secrets for spelling in _spellings(secret)):
        return True
    texts = {text, html.unescape(text)}
    return any(_stands_as_password(t) or _assigned(t, plain) for t in texts)


def _spellings(secret: str) -> set[str]:
    """As it is, inside JSON (once and twice encoded), and inside HTML."""
    once = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    twice = {json.dumps(spelling)[1:-1] for spelling in once}
    return {secret, html.escape(secret), html.escape(secret, quote=False), *once, *twice}


def _stands_as_password(text: str) -> bool:
    found = [match["secret"] for pattern in (_ADDRESS, _KEYWORD) for match in pattern.finditer(text)]
    in_sql = [(match["secret"] or match["dollar"]).rstrip("\\") for match in _IN_SQL.finditer(text)]
    return any(not _HARMLESS.fullmatch(secret) for secret in found) or any(
        not _PLACEHOLDER.fullmatch(secret) for secret in in_sql
    )


def _assigned(text: str, plain: Collection[str]) -> bool:
    """A short or common secret after ``password``, whatever stands between: ``password: x``, ``"password": "x"``."""
    return any(re.search(rf"password\W{{1,6}}{re.escape(secret)}\b", text, re.IGNORECASE) for secret in plain)
