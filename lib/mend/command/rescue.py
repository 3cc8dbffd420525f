"""What ``mend rescue`` does: lists what mend keeps in a target's schema ``mend``, and drops what has expired, by a run of data_loss."""

from __future__ import annotations

from typing import Any

from mend.command import commands, screen
from mend.errors import InvalidParameter, Refused

NAMES = ("name", "kind", "source", "rows", "size", "created (UTC)", "expires (UTC)", "run", "revision", "state")


def listed(target_name: str, *, json: bool) -> int:
    """Everything that is kept.  2: something has expired, or is not as it was written; 0: nothing is, or all is well."""
    from mend.database import target
    from mend.loss import kept_ways
    from mend.slow.wear import size

    place = target.resolve(target_name)
    facts = kept_ways.of(place)
    entries: list[dict[str, Any]] = [
        {str(key): value for key, value in row.items()} for row in facts.frame().to_dict("records")
    ]
    if json:
        screen.document({"target": place.name, "schema": facts.schema, "kept": entries})
    elif not entries:
        screen.out(f"Nothing is kept in schema {facts.schema} of {place.name}.")
    else:
        rows = [
            [e["name"], e["kind"], e["source"], f"{e['rows']:,}", size(e["bytes"]), e["created_at"], _until(e), e["run_id"], e["revision"], e["state"]]
            for e in entries
        ]  # fmt: skip
        screen.table(NAMES, rows)
        if facts.expired():
            screen.say(screen.command(f"mend rescue drop --expired -t {target_name}"))
    return 2 if facts.expired() or facts.wrong else 0


def _until(entry: dict[str, Any]) -> str:
    if not entry["expires_at"]:
        return "not known"
    return f"{entry['expires_at']}{' (expired)' if entry['expired'] else ''}"


def drop(target_name: str, *, expired: bool, incident: str, approve: str, auto: bool, json: bool) -> int:
    """Plan to drop what has expired; with the digest of that plan, drop it.

    Raises: InvalidParameter without ``expired``; Refused where the lab holds another incident.
    """
    from mend.database import target
    from mend.loss import kept_ways

    if not expired:
        raise InvalidParameter(
            "Only what has expired is dropped. Nothing was changed. Say --expired; `mend rescue list` shows what that is."
        )
    place = target.resolve(target_name)
    _require_own_lab(target_name)
    found = kept_ways.of(place)
    if not found.expired() and not found.withheld():
        screen.document({"target": place.name, "expired": []}) if json else screen.out(
            f"Nothing has expired in {place.name}."
        )
        return 0
    values = commands.given(
        "data_loss", {"target": target_name, "incident": incident}, [("option", "drop_expired")], None
    )
    if not (approve or auto):
        return commands.plan("data_loss", values, json=json)
    options = {"target": target_name, "incident": incident}
    return commands.apply(
        "data_loss", options, [("option", "drop_expired")], None, approve=approve, auto=auto, json=json
    )


def _require_own_lab(target_name: str) -> None:
    """A run of data_loss on the lab makes the lab's incident of data_loss first, and another one would be gone."""
    if target_name != "lab":
        return
    from mend import lab

    current = lab.current()
    if current is None or current.slug != "data_loss":
        raise Refused(
            "The lab holds no incident of data_loss. Nothing was changed. Make one with `mend lab start data_loss`."
        )
