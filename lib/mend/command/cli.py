"""The ``mend`` command: declarations only.  What a command does stands in `commands`, loaded when it runs.

Exit codes: 0 healthy, or done and verified; 2 a plan waits, or triage found something; 3 refused; 4 outcome unknown or
interrupted; 1 error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Runbooks for broken PostgreSQL migrations: diagnose, plan, apply under guard, verify, keep the record.\n\n"
    "Exit codes: 0 healthy or done and verified, 2 a plan waits or triage found something, 3 refused, 4 unknown or interrupted, 1 error.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
lab = typer.Typer(help="The practice database on this machine.", rich_markup_mode=None, no_args_is_help=True)
app.add_typer(lab, name="lab")
rescue = typer.Typer(
    help="What mend keeps in a target's schema mend: copies of what was dropped, images of changed rows.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(rescue, name="rescue")

_PAIR = "\x1f"  # between NAME and VALUE of -p once they are one word; no shell lets it through by accident
_PAIRED_COMMANDS = ("plan", "apply", "open")

TargetName = Annotated[
    str, typer.Option("-t", "--target", metavar="TARGET", help="lab, env:NAME, service:NAME, or a name from mend.toml.")
]
Ini = Annotated[Path | None, typer.Option("-a", "--alembic-ini", metavar="INI", help="The project's alembic.ini.")]
Pairs = Annotated[
    list[str] | None,
    typer.Option("-p", "--parameter", metavar="NAME VALUE", help="A parameter of the runbook; may be repeated."),
]
File = Annotated[
    Path | None, typer.Option("-f", "--parameters-file", metavar="YAML", help="Parameters from a YAML file.")
]
Incident = Annotated[str, typer.Option("--incident", metavar="ID", help="A name that ties runs together.")]
Python = Annotated[
    str,
    typer.Option("--python", metavar="PATH", help="The project's interpreter; default: the .venv beside alembic.ini."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Slug = Annotated[str, typer.Argument(metavar="SLUG")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run id; a unique beginning or end is enough.")]


def paired(arguments: list[str]) -> list[str]:
    """``-p NAME VALUE`` as one word each, because typer has no repeated option of two values.

    >>> paired(["plan", "x", "-p", "revision", "1e5"])[2:]
    ['-p', 'revision\\x1f1e5']
    """
    if not arguments or arguments[0] not in _PAIRED_COMMANDS:
        return arguments
    words: list[str] = []
    left = iter(arguments)
    for word in left:
        words.append(word)
        if word in ("-p", "--parameter"):
            name, value = next(left, None), next(left, None)
            if name is None or value is None:
                raise typer.BadParameter(f"{word} needs NAME VALUE")
            words.append(name + _PAIR + value)
    return words


def _split(pairs: list[str] | None) -> list[tuple[str, str]]:
    if lone := next((pair for pair in pairs or [] if _PAIR not in pair), None):
        raise typer.BadParameter(f"-p needs NAME VALUE, two words, not {lone!r}")
    return [(name, value) for name, _, value in (pair.partition(_PAIR) for pair in pairs or [])]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """``--debug`` is taken out in __main__; it is here to be seen in the help."""


@app.command()
def demo(rows: Annotated[int, typer.Option(help="Orders in the practice shop.")] = 100_000) -> int:
    """Break a practice database, then diagnose, plan, apply, verify and archive: about one minute."""
    from mend.command import demo as room

    return room.run(rows=rows)


@app.command(name="list")
def list_(json: Json = False) -> int:
    """The catalogue: slug, symptom, SQLSTATEs."""
    from mend.command import commands

    return commands.catalogue(json=json)


@app.command()
def triage(
    text: Annotated[str, typer.Argument(metavar="[-]", help="- reads the error text from stdin.")] = "",
    target: TargetName = "",
    alembic_ini: Ini = None,
    error: Annotated[str, typer.Option("--error", metavar="TEXT", help="The error text itself.")] = "",
    error_file: Annotated[
        str, typer.Option("--error-file", metavar="FILE", help="A file with the error text; - reads stdin.")
    ] = "",
    json: Json = False,
) -> int:
    """Name the failure mode from an error text (in English), a database, or both.

    Exits with 2 if it found something, 0 if a database shows nothing, 1 if a text was not recognised or something could not
    be checked.
    """
    from mend.command import commands

    if text not in ("", "-"):
        raise typer.BadParameter(f"{text!r} is no error text; give - to read one from stdin, or --error TEXT")
    if text and error_file:
        raise typer.BadParameter("- and --error-file were both given; give one")
    return commands.triage(target, alembic_ini, text=error, file=error_file or text, json=json)


@app.command()
def lint(
    alembic_ini: Ini = None,
    since: Annotated[
        str,
        typer.Option("--since", metavar="REVISION", help="squawk reads every revision after this one; default: heads."),
    ] = "",
    python: Python = "",
    json: Json = False,
) -> int:
    """Read a project's revisions and env.py without running them, for CI.

    Exits with 0 if nothing is found, 2 if something is, 1 if it could not be read. A line that ends with "# mend: ignore" is
    passed over. With squawk-cli installed, squawk reads the SQL of the newest revisions too.
    """
    from mend.command import linting

    return linting.lint(alembic_ini, since=since, python=python, json=json)


@app.command()
def plan(
    slug: Slug,
    target: TargetName = "",
    alembic_ini: Ini = None,
    parameter: Pairs = None,
    parameters_file: File = None,
    incident: Incident = "",
    python: Python = "",
    json: Json = False,
) -> int:
    """Diagnose and plan; changes nothing."""
    from mend.command import commands

    options = {"target": target, "alembic_ini": alembic_ini, "incident": incident, "python": python}
    return commands.plan(slug, commands.given(slug, options, _split(parameter), parameters_file), json=json)


@app.command()
def apply(
    what: Annotated[
        str, typer.Argument(metavar="RUN|SLUG", help="A run that made a plan; or a slug, which is planned first.")
    ],
    target: TargetName = "",
    alembic_ini: Ini = None,
    parameter: Pairs = None,
    parameters_file: File = None,
    incident: Incident = "",
    python: Python = "",
    approve: Annotated[
        str, typer.Option("--approve", metavar="DIGEST", help="Digest of the plan that you reviewed.")
    ] = "",
    auto_approve: Annotated[bool, typer.Option("--auto-approve", help="Apply whatever the plan is.")] = False,
    json: Json = False,
) -> int:
    """Apply a plan that was reviewed, verify the result, and keep the record."""
    from mend.command import commands

    options = {"target": target, "alembic_ini": alembic_ini, "incident": incident, "python": python}
    return commands.apply(
        what, options, _split(parameter), parameters_file, approve=approve, auto=auto_approve, json=json
    )


@app.command()
def undo(run: RunId, json: Json = False) -> int:
    """Take back what a run applied."""
    from mend.command import commands

    return commands.follow(run, "undo", json=json)


@app.command()
def resume(run: RunId, json: Json = False) -> int:
    """After a crash: resolve what happened, then go on."""
    from mend.command import commands

    return commands.follow(run, "resume", json=json)


@app.command()
def pause(
    run: RunId,
    off: Annotated[bool, typer.Option("--off", help="Go on.")] = False,
    json: Json = False,
) -> int:
    """Hold a run's backfill between two batches, within about a second; ``--off`` lets it go on.

    It holds no row lock meanwhile; other runs stay kept away from the target.
    """
    from mend.command import commands

    return commands.pause(run, off=off, json=json)


@app.command(name="open")
def open_(
    slug: Slug,
    target: TargetName = "",
    alembic_ini: Ini = None,
    parameter: Pairs = None,
    parameters_file: File = None,
    incident: Incident = "",
    python: Python = "",
) -> int:
    """Open a working copy of a runbook in JupyterLab."""
    from mend.command import commands

    options = {"target": target, "alembic_ini": alembic_ini, "incident": incident, "python": python}
    return commands.open_in_lab(slug, commands.given(slug, options, _split(parameter), parameters_file))


@app.command()
def runs(incident: Incident = "", json: Json = False) -> int:
    """The runs in outputs/, newest first."""
    from mend.command import archived

    return archived.runs(incident, json=json)


@app.command()
def show(run: RunId, json: Json = False) -> int:
    """What one run saw, planned and did."""
    from mend.command import archived

    return archived.show(run, json=json)


@app.command()
def verify(
    run: Annotated[str, typer.Argument(metavar="[RUN]")] = "",
    every: Annotated[bool, typer.Option("--all", help="Every run.")] = False,
    target: Annotated[bool, typer.Option("--target", help="Also compare with what the target remembers.")] = False,
    json: Json = False,
) -> int:
    """Whether records are whole, or edited, truncated, unfinished, missing.  Exits with 1 unless all are whole."""
    from mend.command import archived

    return archived.verify(run, every=every, with_target=target, json=json)


@rescue.command(name="list")
def rescue_list(target: TargetName = "lab", json: Json = False) -> int:
    """What is kept: since when, until when, of which run, and whether it is as it was written.

    Exits with 2 if something has expired or was altered, else with 0.
    """
    from mend.command import rescue as room

    return room.listed(target, json=json)


@rescue.command(name="drop")
def rescue_drop(
    target: TargetName = "lab",
    expired: Annotated[bool, typer.Option("--expired", help="What is kept beyond its time; nothing else is.")] = False,
    incident: Incident = "",
    approve: Annotated[
        str, typer.Option("--approve", metavar="DIGEST", help="Digest of the plan that you reviewed.")
    ] = "",
    auto_approve: Annotated[bool, typer.Option("--auto-approve", help="Apply whatever the plan is.")] = False,
    json: Json = False,
) -> int:
    """Plan to drop what has expired; with --approve, drop it and keep the record.  What was altered is never dropped."""
    from mend.command import rescue as room

    return room.drop(target, expired=expired, incident=incident, approve=approve, auto=auto_approve, json=json)


@lab.command(name="list")
def lab_list(json: Json = False) -> int:
    """The incidents that the lab can make."""
    from mend.command import practice

    return practice.scenarios(json=json)


@lab.command(name="start")
def lab_start(
    slug: Slug,
    scenario: Annotated[
        str, typer.Option("--scenario", metavar="NAME", help="Which incident; `mend lab list` names them.")
    ] = "",
    rows: Annotated[int, typer.Option("--rows", help="Orders in the practice shop.")] = 100_000,
    json: Json = False,
) -> int:
    """Break the practice database with a real migration."""
    from mend.command import practice

    return practice.start(slug, scenario, rows=rows, json=json)


@lab.command(name="status")
def lab_status(json: Json = False) -> int:
    """Whether the lab runs, and with which incident."""
    from mend.command import practice

    return practice.status(json=json)


@lab.command(name="reset")
def lab_reset() -> int:
    """Throw the practice database away."""
    from mend.command import practice

    return practice.reset()


@lab.command(name="stop")
def lab_stop() -> int:
    """Stop the practice server; its data stay."""
    from mend.command import practice

    return practice.stop()
