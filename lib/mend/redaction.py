"""What must never be shown: passwords in texts, and every spelling that a password may take. Pure, but for libpq's service file."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

# A password may hold an @: then it ends at the last one before the host's slash. One that holds a slash ends at the first @.
_IN_ADDRESS = re.compile(r"(://[^\s:/@'\"]*:)([^\s/'\"]+|[^\s@'\"]+)(@)")
_ASSIGNED = re.compile(r"(\b(?:ssl|pg)?password\s*=\s*)('(?:[^'\\]|\\.)*'|(?:[^\s'\"&\\]|\\.)+)", re.IGNORECASE)
# CREATE ROLE .. PASSWORD '..', OPTIONS (password '..'); a quote within is doubled, or escaped in an E''.
_IN_SQL = re.compile(
    r"(\bpassword\s+)(?:e'(?:[^'\\]|\\.|'')*'|(?:u&)?'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)",
    re.IGNORECASE | re.DOTALL,
)


def redact(text: str) -> str:
    """``text`` with the password of any address, keyword string or SQL replaced by ``***``.

    >>> redact("postgresql://ann:s3cret@db/shop and password=hunter2")
    'postgresql://ann:***@db/shop and password=***'
    >>> redact("create role ann password 'it''s' login")
    "create role ann password '***' login"
    """
    return _IN_SQL.sub(r"\1'***'", _ASSIGNED.sub(r"\1***", _IN_ADDRESS.sub(r"\1***\3", text)))


def passwords(conninfo: Mapping[str, str], *, also: str = "") -> tuple[str, ...]:
    """The passwords of a connection, in every spelling; the longest first, because one may begin another."""
    found = [conninfo.get("password", ""), conninfo.get("sslpassword", ""), also]
    if "service" in conninfo:
        found.append(_of_service(conninfo["service"]))
    return tuple(
        sorted({spelling for secret in found if secret for spelling in _spellings(secret)}, key=lambda s: (-len(s), s))
    )


def _spellings(secret: str) -> set[str]:
    """As it is, inside an address (percent signs in capitals or not), inside a keyword string, and inside JSON."""
    from urllib.parse import quote, quote_plus

    coded = {quote(secret, safe=""), quote(secret), quote(secret, safe=" +"), quote_plus(secret)}
    small = {re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), text) for text in coded}
    escaped = re.sub(r"([\\'])", r"\\\1", secret)
    return {secret, escaped, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]} | coded | small


def _of_service(name: str) -> str:
    """The password that libpq will find in its service file, or ''."""
    own = os.environ.get("PGSERVICEFILE") or Path.home() / ".pg_service.conf"
    for path in (Path(own), Path(os.environ.get("PGSYSCONFDIR", "/etc/postgresql-common")) / "pg_service.conf"):
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        lines = [line.strip() for line in text.splitlines()]
        if f"[{name}]" in lines:
            section = itertools.takewhile(lambda line: not line.startswith("["), lines[lines.index(f"[{name}]") + 1 :])
            return next((line.partition("=")[2] for line in section if line.startswith("password=")), "")
    return ""
