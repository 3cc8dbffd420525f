"""Rooms and the packages that they stand in import downwards only; what writes, draws or imports a project stands in one room each."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mend
import pytest

PACKAGE = Path(mend.__file__).parent
SHOP = PACKAGE / "lab" / "shop" / "migrations"


def _room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


ROOMS = {_room(path): path for path in sorted(PACKAGE.rglob("*.py")) if SHOP not in path.parents}
SQL = sorted(PACKAGE.rglob("*.sql"))


def _imports(path: Path) -> Iterator[str]:
    """Full names of what a file imports at run time, at its top or inside a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _rooms_used(room: str) -> set[str]:
    """Our own rooms that a room imports."""
    used = set()
    for name in _imports(ROOMS[room]):
        parts = name.split(".")
        if parts[0] == "mend":
            names = [".".join(parts[1 : n + 1]) for n in range(1, len(parts))]
            used |= set([name for name in names if name in ROOMS][-1:])
    return used - {room}


USES = {room: _rooms_used(room) for room in ROOMS}
PROBE = {room for room in ROOMS if room.split(".")[0] == "probe"}


def test_the_rooms_are_found() -> None:
    assert {"errors", "database.target", "execution.execute", "modes.failed_migration", "lab.shop"} <= set(ROOMS)
    assert "errors" in USES["database.target"]


def test_no_room_imports_itself_through_others() -> None:
    done: set[str] = set()

    def walk(room: str, path: tuple[str, ...]) -> None:
        assert room not in path, " -> ".join([*path, room])
        if room not in done:
            for used in USES[room]:
                walk(used, (*path, room))
            done.add(room)

    for room in ROOMS:
        walk(room, ())


def _reaches(room: str) -> set[str]:
    found: set[str] = set()
    left = [room]
    while left:
        new = USES[left.pop()] - found
        found |= new
        left += new
    return found


@pytest.mark.parametrize("mode", [room for room in ROOMS if room.startswith("modes.")])
def test_a_mode_reaches_no_other_mode_and_nothing_that_acts_or_draws(mode: str) -> None:
    forbidden = ("execution.", "notebook.", "command.", "modes.")
    assert not {r for r in _reaches(mode) if r.startswith(forbidden) or r in ("runbook", "engine", "record.archive")}


@pytest.mark.parametrize(
    ("room", "by"),
    [
        ("command.cli", {"__main__"}),
        ("command.commands", {"command.cli", "command.demo", "command.rescue"}),
        ("runbook", set()),
        ("notebook.widgets", {"runbook"}),
        ("execution.execute", {"runbook"}),
        ("execution.runners", {"execution.execute"}),
    ],
)
def test_what_stands_at_the_top_is_used_from_the_top_alone(room: str, by: set[str]) -> None:
    assert {user for user, used in USES.items() if room in used} <= by


@pytest.mark.parametrize(
    "ground",
    [
        "errors",
        "journal",
        "plan",
        "diagnosis",
        "settings",
        "database.queries",
        "symptoms.signatures",
        "symptoms.errortext",
    ],
)
def test_the_ground_floor_needs_only_the_ground_floor(ground: str) -> None:
    assert _reaches(ground) <= {
        *("", "errors", "journal", "plan", "diagnosis", "settings", "sql", "database", "symptoms"),
        *("database.target", "database.queries", "histories", "histories.project", "symptoms.signatures"),
        *("postgres", "postgres.place"),
    }


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("ipywidgets", {"notebook.widgets"}),
        ("matplotlib", {"record.plots", "mismatch.plots_drift", "queue.plots_forest"}),
        ("alembic", PROBE | {"migrations"}),
        ("psycopg2", PROBE),
    ],
)
def test_a_library_has_one_room(library: str, rooms: set[str]) -> None:
    users = {room for room, path in ROOMS.items() if any(name.split(".")[0] == library for name in _imports(path))}
    assert users <= rooms


def test_the_probe_depends_on_nothing_of_ours() -> None:
    assert set().union(*(USES[room] for room in PROBE)) <= PROBE


def test_what_projects_import_depends_on_nothing_of_ours_and_nothing_of_ours_on_it() -> None:
    assert USES["migrations"] == set()
    assert not [room for room, used in USES.items() if "migrations" in used]


def test_only_the_executor_and_its_runners_open_a_writing_session() -> None:
    users = {
        room
        for room, path in ROOMS.items()
        if any(isinstance(n, ast.Attribute) and n.attr == "writing" for n in ast.walk(ast.parse(path.read_text())))
    }
    assert users == {"execution.execute", "execution.runners"}


def _catches_everything(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")


def test_what_catches_every_exception_raises_it_again() -> None:
    for path in ROOMS.values():
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ExceptHandler) and _catches_everything(node):
                excused = path.name == "__main__.py" or "noqa: BLE001" in text.splitlines()[node.lineno - 1]
                assert excused or any(isinstance(inner, ast.Raise) for inner in ast.walk(node)), f"{path}:{node.lineno}"


# -- packages ---------------------------------------------------------------------------------------------------------

README = PACKAGE.parents[1] / "README.md"
ROW = re.compile(r"^\| (?:`(\w+)`|top) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
HOUSE = README.read_text(encoding="utf-8").partition("| package of `lib/mend` |")[2].partition("\n\n")[0]
FLOORS = {package: set(re.findall(r"`(\w+)`", modules)) for package, modules in ROW.findall(HOUSE)}


def _package(room: str) -> str:
    package = room.partition(".")[0]
    return package if package in FLOORS else ""


@pytest.mark.parametrize("package", [package for package in FLOORS if package])
def test_a_package_imports_only_from_those_above_it_in_the_readme(package: str) -> None:
    order = list(FLOORS)
    used = {_package(other) for room in ROOMS if _package(room) == package for other in USES[room]}
    assert used - {package} <= set(order[: order.index(package)])


def test_the_readme_names_every_module_in_its_package() -> None:
    by_slug_or_small = {"lab", "modes", "probe"}
    there = {name: set[str]() for name in FLOORS}
    for room in ROOMS:
        package, _, module = room.rpartition(".")
        if package in there and package not in by_slug_or_small and module and not module.startswith("__"):
            there[package].add(module)
    there[""] -= set(FLOORS) | {"sql", "styles"}
    assert there == FLOORS


# -- .sql files -------------------------------------------------------------------------------------------------------

SIDE_EFFECTS = re.compile(
    r"\b(pg_(terminate|cancel)_backend|pg_(try_)?advisory\w*|pg_notify|pg_reload_conf|pg_rotate_logfile|pg_switch_wal|pg_promote|pg_logical_emit_message|"
    r"pg_create_\w+|pg_drop_\w+|pg_replication_\w*(advance|reset|create|drop)\w*|pg_stat_reset\w*|pg_stat_statements_reset|pg_read_\w*file\w*|pg_ls_dir|pg_import_system_collations|"
    r"pg_wal_replay_\w+|pg_backup_\w+|pg_export_snapshot|pg_current_xact_id|txid_current|nextval|setval|lo_\w+|dblink\w*|query_to_xml\w*|pg_sleep\w*|pg_prewarm)\s*\(",
    re.IGNORECASE,
)
LOCAL_SETTING = re.compile(r"\bset_config\((?:[^()]|\([^()]*\))*,\s*true\)", re.IGNORECASE)


def _sql(path: Path) -> str:
    return re.sub(r"--[^\n]*", "", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [p for p in SQL if "shop" not in p.parts], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_question_has_no_side_effect(path: Path) -> None:
    text = _sql(path)
    assert not SIDE_EFFECTS.search(text)
    assert "set_config" not in LOCAL_SETTING.sub("", text), "only a setting that ends with the transaction"
    words = re.sub(r"'(?:[^']|'')*'", "''", text).lower()
    assert re.match(r"\s*(with|select|values|table)\b", words)
    assert not re.search(
        r"\b(insert\s+into|update\s+[\w.]+\s+set|delete\s+from|merge\s+into|for\s+(no\s+key\s+)?update|for\s+(key\s+)?share)\b",
        words,
    )
    assert ";" not in words.rstrip().rstrip(";")


@pytest.mark.parametrize(
    "text",
    [
        "select pg_terminate_backend(1)",
        "select  PG_CANCEL_BACKEND (pid) from x",
        "select setval('a', 1)",
        "select pg_try_advisory_lock(1)",
        "select lo_import('/x')",
    ],
)
def test_the_bar_on_side_effects_can_fail(text: str) -> None:
    assert SIDE_EFFECTS.search(text)


# -- start-up ---------------------------------------------------------------------------------------------------------

HEAVY = (
    "pandas",
    "numpy",
    "sqlalchemy",
    "alembic",
    "papermill",
    "nbformat",
    "nbclient",
    "IPython",
    "psycopg",
    "ipywidgets",
    "matplotlib",
    "rich",
    "yaml",
)


@pytest.mark.parametrize(
    "code",
    [
        "import mend.command.cli",
        "import mend.symptoms.triage; mend.symptoms.triage.triage('ERROR:  deadlock detected')",
        "import mend.__main__; mend.__main__.main(['--help'])",
        "import mend.__main__; mend.__main__.main(['list'])",
    ],
)
def test_a_light_command_loads_nothing_heavy(code: str) -> None:
    program = f"import sys\n{code}\nprint([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "[]"
