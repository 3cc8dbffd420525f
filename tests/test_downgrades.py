"""What downgrades really do: two public histories proven revision by revision, and every hand-made way in which one goes wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from mend import lab
from mend.errors import ReplayFailed, ScratchUnavailable
from mend.histories import history
from mend.histories.project import Project
from mend.postgres.server import Server
from mend.replays import downgrades, scratch
from mend.replays.downgrades import Proven
from projects import keywords, project, revision
from test_public_histories import hub, hub_at, optuna, own_server

__all__ = ["hub_at"]


def prove(made: Project, server: Server, *, path: int = 99, base: Path | None = None, start: str = "") -> Proven:
    """The newest so many revisions of a history, from its heads down; never what a dump begins with."""
    past = history.read(made.alembic_ini, python=made.python)
    below = past.ancestors([start]) if start else set()
    mine = [one for one in past.ordered() if one not in below][-path:]
    way = downgrades.way(past, set(past.revisions), mine, ())
    return downgrades.proven(made, way, scratch=own_server(server), base=base, base_revision=start)


def verdicts(made: Proven) -> dict[str, str]:
    return {one: proof.verdict for one, proof in made.proofs.items()}


# --- two public histories -----------------------------------------------------------------------------------------------


def test_every_downgrade_of_optuna_is_proven_or_its_failure_explained(
    server: Server, database: str, tmp_path: Path
) -> None:
    made = prove(optuna(tmp_path, database), server)
    assert verdicts(made) == {
        "v0.9.0.a": "breaks the next upgrade",
        "v1.2.0.a": "exact",
        "v1.3.0.a": "exact",
        "v2.4.0.a": "breaks the next upgrade",
        "v2.6.0.a": "exact",
        "v3.0.0.a": "exact",
        "v3.0.0.b": "leaves something behind",
        "v3.0.0.c": "cannot be taken back",
        "v3.0.0.d": "exact",
        "v3.2.0.a": "exact",
    }
    enums = [c.identity for c in made.proofs["v0.9.0.a"].left if c.kind == "enum"]
    assert enums == ["public.studydirection", "public.trialstate"]
    assert "42710" in str(made.proofs["v0.9.0.a"].failed_again)
    assert [(c.kind, c.identity) for c in made.proofs["v3.0.0.b"].left] == [("not_null", "public.trial_values.value")]
    assert made.stops is not None
    assert made.stops.revision == "v3.0.0.c"
    assert made.unreached is None


def test_every_downgrade_of_jupyterhub_is_proven_or_its_failure_explained(
    server: Server, hub_at: Callable[[str], str], keep_database: Callable[..., str], tmp_path: Path
) -> None:
    start = "0eee8c825d24"
    url = keep_database("hub_downgrades", hub_at(start))
    dump = scratch._run(
        [scratch._clients(server.binaries.major)[0], "--schema-only", "--no-owner", "--no-privileges"], keywords(url)
    )
    (tmp_path / "base.sql").write_text(re.sub(r"^\\(un)?restrict .*$", "", dump, flags=re.MULTILINE))
    made = prove(hub(tmp_path, url), server, base=tmp_path / "base.sql", start=start)
    assert verdicts(made) == {
        "3c2384c5aae1": "cannot be taken back",
        "4621fec11365": "exact",
        "be8ecf03ddac": "exact",
        "afd65840b69e": "exact",
        "ff1860e38070": "exact",
        "f460b0348206": "exact",
    }
    assert "Boolean value of this clause" in str(made.proofs["3c2384c5aae1"].failed)
    assert made.stops is not None
    assert made.stops.revision == "3c2384c5aae1"
    assert made.unreached is None


# --- every way in which one goes wrong ----------------------------------------------------------------------------------

#: By name: upgrade(), downgrade() (None: there is none), and what the proof must say.
WRONG: dict[str, tuple[str, str | None, str]] = {
    "ground": (
        """op.create_table("t", sa.Column("id", sa.Integer, primary_key=True), sa.Column("a", sa.Integer), sa.Column("old", sa.Text))
op.create_index("ix_t_old", "t", ["old"])""",
        """op.drop_table("t")""",
        "exact",
    ),
    "enum_stays": (
        """op.create_table("e", sa.Column("m", sa.Enum("x", "y", name="mood")))""",
        """op.drop_table("e")""",
        "breaks the next upgrade",
    ),
    "settings_decide": (
        """op.add_column("t", sa.Column("flag", sa.Boolean))""",
        """import os
if os.environ.get("REALLY"):
    op.drop_column("t", "flag")""",
        "breaks the next upgrade",
    ),
    "wrong_order": (
        """op.add_column("t", sa.Column("b", sa.Integer))
op.execute("create view v_b as select b from t")""",
        """op.drop_column("t", "b")
op.execute("drop view v_b")""",
        "fails",
    ),
    "says_no": ("""op.add_column("t", sa.Column("c", sa.Integer))""", "raise NotImplementedError", "cannot be taken back"),
    "has_none": ("""op.add_column("t", sa.Column("d", sa.Integer))""", None, "cannot be taken back"),
    "takes_more": (
        """op.create_index("ix_t_a", "t", ["a"])""",
        """op.drop_index("ix_t_a")
op.drop_index("ix_t_old")""",
        "loses something",
    ),
    "comes_back_empty": (
        """op.drop_column("t", "a")""",
        """op.add_column("t", sa.Column("a", sa.Integer))
op.create_index("ix_t_a", "t", ["a"])""",
        "exact",
    ),
    "forgets_its_index": ("""op.drop_column("t", "old")""", """op.add_column("t", sa.Column("old", sa.Text))""", "loses something"),
    "concurrently": (
        """with op.get_context().autocommit_block():
    op.create_index("ix_t_id", "t", ["id"], postgresql_concurrently=True)""",
        """with op.get_context().autocommit_block():
    op.drop_index("ix_t_id", postgresql_concurrently=True)""",
        "exact",
    ),
    "half_and_stop": (
        """op.add_column("t", sa.Column("g", sa.Integer))
op.add_column("t", sa.Column("h", sa.Integer))""",
        """with op.get_context().autocommit_block():
    op.drop_column("t", "g")
op.execute("select 1 / 0")""",
        "fails",
    ),
    "reads_rows": (
        """op.add_column("t", sa.Column("r", sa.Integer))""",
        """for row in op.get_bind().execute(sa.text("select id from t")):
    op.execute("delete from t where id = %d" % row[0])
op.drop_column("t", "r")""",
        "exact",
    ),
    "not_null_again": (
        """op.alter_column("t", "r", existing_type=sa.Integer, type_=sa.BigInteger)
op.execute("alter table t add column n int not null default 0")
op.execute("alter table t drop column n")""",
        """op.alter_column("t", "r", existing_type=sa.BigInteger, type_=sa.Integer)""",
        "exact",
    ),
}  # fmt: skip


def chained(upto: str = "") -> dict[str, str]:
    """The revisions of WRONG, one after the other."""
    found, down = {}, None
    for name, (upgrade, downgrade, _) in WRONG.items():
        text = revision(name, down, upgrade)
        if downgrade is not None:
            body = "\n".join("    " + line for line in downgrade.splitlines())
            text += f"\ndef downgrade():\n{body}\n"
        found[name], down = text, name
        if name == upto:
            break
    return found


def test_every_way_in_which_a_downgrade_goes_wrong_is_told_apart(server: Server, tmp_path: Path) -> None:
    made = prove(project(tmp_path, chained()), server)
    assert verdicts(made) == {name: verdict for name, (_, _, verdict) in WRONG.items()}
    proofs = made.proofs
    assert "42710" in str(proofs["enum_stays"].failed_again)
    assert "42701" in str(proofs["settings_decide"].failed_again)
    failed = proofs["wrong_order"].failed
    assert failed is not None
    assert (failed.sqlstate, "DROP COLUMN b" in failed.sql) == ("2BP01", True)
    assert proofs["says_no"].failed is not None
    assert proofs["says_no"].failed.kind == "NotImplementedError"
    assert "downgrade" in str(proofs["has_none"].failed)
    assert [(c.kind, c.identity) for c in proofs["forgets_its_index"].left] == [("index", "public.ix_t_old")]
    assert proofs["concurrently"].statements[0].autocommit
    assert proofs["reads_rows"].reads
    assert made.stops is not None
    assert made.stops.revision == "half_and_stop"
    again = prove(project(tmp_path, chained()), server)
    assert (again.cached, verdicts(again)) == (True, verdicts(made))


def test_the_catalog_is_known_at_every_revision_of_the_path(server: Server, tmp_path: Path) -> None:
    made = prove(project(tmp_path, chained("wrong_order")), server, path=2)
    assert made.path == ("settings_decide", "wrong_order")
    assert ("column", "public.t.flag") not in made.at("")
    assert ("column", "public.t.flag") in made.at("settings_decide")
    assert ("view", "public.v_b") in made.at("wrong_order")


def test_a_scratch_server_that_makes_no_databases_is_said_to(server: Server, tmp_path: Path) -> None:
    with lab.administrator(server) as connection:
        connection.execute(
            "do $$ begin if not exists (select from pg_roles where rolname = 'pauper') then create role pauper login; end if; end $$"
        )
    there = {**keywords(server.url()), "user": "pauper"}
    made = project(tmp_path, chained("ground"))
    way = downgrades.way(history.read(made.alembic_ini), {"ground"}, ("ground",), ())
    with pytest.raises(
        ScratchUnavailable, match=r"permission denied to create database.*The target was not touched.*needs CREATEDB"
    ):
        downgrades.proven(made, way, scratch=scratch.Scratch(server.binaries.major, there))


def test_a_history_that_does_not_run_up_to_the_path_says_where_and_what_to_give(server: Server, tmp_path: Path) -> None:
    files = {"a": revision("a", None, 'op.execute("alter table nowhere add a int")'), "b": revision("b", "a")}
    with pytest.raises(ReplayFailed, match=r"revision a fails: .*42P01.*base_revision"):
        prove(project(tmp_path, files), server, path=1)
