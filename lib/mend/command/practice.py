"""What ``mend lab`` does with the practice database."""

from __future__ import annotations

import shlex

from mend import lab
from mend.command import screen

_SEEN = ("target", "alembic_ini", "revision")  # what the database and the files tell; the rest only the operator knows


def scenarios(*, json: bool) -> int:
    """Slugs and their scenarios, the default first."""
    known = lab.scenarios()
    if json:
        screen.document({"scenarios": known})
    else:
        for slug, names in known.items():
            screen.out(f"{slug}: {', '.join(names)}")
    return 0


def start(slug: str, scenario: str, *, rows: int, json: bool) -> int:
    """Break the shop; prints what to type next."""
    incident = lab.start(slug, scenario=scenario, rows=rows, progress=screen.say)
    if json:
        screen.document({
            "slug": incident.slug, "scenario": incident.scenario, "target": incident.target, "alembic_ini": str(incident.alembic_ini),
            "error_file": str(incident.error_file), "parameters": dict(incident.parameters), "next": incident.next,
        })  # fmt: skip
        return 0
    screen.out(f"The shop is broken: {incident.slug}, {incident.scenario}.")
    screen.out(f"target       {incident.target}")
    screen.out(f"alembic.ini  {shlex.quote(str(incident.alembic_ini))}")
    screen.out(f"error        {shlex.quote(str(incident.error_file))}")
    told = [(name, value) for name, value in incident.parameters.items() if name not in _SEEN]
    if told:
        words = shlex.join(word for name, value in told for word in ("-p", name, str(value)))
        screen.out(f"known        {words}")
    screen.out(f"next         {screen.command(incident.next)}")
    return 0


def status(*, json: bool) -> int:
    """Whether it runs, where it is, what it holds."""
    known = lab.status()
    if json:
        screen.document(known)
        return 0
    incident = known["incident"]
    screen.out(
        f"{'running' if known['running'] else 'stopped'}, PostgreSQL {known['server_version']}, in {known['home']}"
    )
    screen.out(
        f"incident {incident['slug']}, {incident['scenario']}"
        if incident
        else "no incident: mend lab start failed_migration"
    )
    return 0


def reset() -> int:
    """Remove the lab."""
    lab.reset()
    screen.say("the lab is gone")
    return 0


def stop() -> int:
    """Stop its server."""
    lab.stop()
    screen.say("the lab's server is stopped; its data stay")
    return 0
