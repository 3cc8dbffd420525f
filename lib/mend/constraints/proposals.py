"""May these values be written?  Asked of the database before anything is written, by read-only questions under a timeout.

Every question is about the rows as they would be (`proposed`), so an index, a check or a foreign key is asked about in its own
words.  A question that does not come to an end in time is an objection ("could not check"), never silence.  What a BEFORE
trigger would make of a value, and what other sessions write meanwhile, cannot be known here: the repair itself finds it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mend.constraints import proposed
from mend.constraints.asking import SAMPLE, Asker, Objection, Proposal
from mend.constraints.proposed import REL, Key
from mend.database import names, queries
from mend.values import counting, masking, offenders
from mend.values.counting import TIMEOUT_MS

if TYPE_CHECKING:
    import pandas
    from sqlalchemy import Connection

__all__ = ["SAMPLE", "Objection", "Proposal", "objections"]


def objections(
    conn: Connection, proposal: Proposal, *, timeout_ms: int = TIMEOUT_MS, mask: bool = True
) -> tuple[Objection, ...]:
    """Everything that speaks against a proposal; empty means that the values may be written.

    Asks: does the server take the statement; can every value be computed; is a value NULL where it must not be; too long, out of range;
    refused by a CHECK, a domain, a foreign key of the column or to it; would it be equal to another row's by any unique index that has the
    column, by that index's own equality, or to another new value.

    ``timeout_ms`` bounds each question, not their sum.  Reads: the table, its parents and children.  Writes: nothing.
    Raises: InvalidParameter if the table or a column is unknown; PrivilegeMissing.
    """
    asked = _Asked(conn, proposal, timeout_ms, mask)
    for stage in (asked.statement, asked.computing, asked.conditions):
        found = tuple(stage())
        if found and stage is not asked.conditions:
            return found  # what cannot be computed cannot be asked about either
    return (*found, *asked.keys(), *asked.parents(), *asked.children())


@dataclass(frozen=True)
class _Condition:
    """A condition over the fresh rows that none may meet, and the columns that show why."""

    says: str
    sql: str
    shown: tuple[str, ...]


class _Asked(Asker):
    """The questions."""

    def statement(self) -> Iterator[Objection]:
        """Does the server take it? It is explained, not run."""
        yield from self._failing(
            f"explain (costs off) {self.change.statement()}", "The server does not take the statement"
        )
        moved = set(self.relations["partition_columns"].explode().dropna()) & set(self.change.values)
        if moved and self.change.action == "update":
            yield self._objection(
                f"{', '.join(sorted(moved))} decides the partition of a row: a new value would move rows between partitions",
                None,
            )
        if self.change.action == "insert":
            yield from self._left_out()
        elif self.change.work:
            yield from self._twice()

    def _twice(self) -> Iterator[Objection]:
        """Rows for which the work list has more than one line: which of them would be written is chance."""
        rows = f"select t.ctid, t.tableoid {self.change.joined()} where (\n{self.change.where}\n) group by 1, 2 having count(*) > 1"
        answer = self._answer(
            f"select count(*) from ({rows}) as twice", "whether the work list has one line for each row"
        )
        if isinstance(answer, Objection):
            yield answer
        elif answer.rows[0][0]:
            count = int(answer.rows[0][0])
            yield self._objection(f"The work list has more than one line for {_rows(count)}", count)

    def _left_out(self) -> Iterator[Objection]:
        """Columns of a new row that nobody gives a value."""
        for column in self.columns:
            if (
                column.not_null
                and not column.has_default
                and not column.generation
                and column.name not in self.change.values
            ):
                yield self._objection(f"{column.name} is NOT NULL, has no default, and is given no value", None)

    def computing(self) -> Iterator[Objection]:
        """Can every value be computed? Names the rows where it fails."""
        counted = ", ".join(f"count({proposed.new(n)})" for n in range(len(self.change.values)))

        def question(only: str) -> str:
            return f"select {counted} from ({proposed.computed(self.change, self.columns, self.row_keys, only=only)}) as computed"

        failure = self._failure(question("true"))
        if failure is None:
            return
        if not failure.about_a_row or self.change.action == "insert":
            yield self._objection(failure.says("The values could not be computed"), None)
            return
        found = offenders.find(
            self.conn, question, self._addresses, self.relations, timeout_ms=self.timeout_ms, mask=self.mask
        )
        yield self._objection(
            failure.says(f"A value cannot be computed for {found.says}"), None, self._offending(found.rows)
        )

    def _addresses(self, only: str) -> str:
        return f"select t.ctid {self.change.joined()} where {only} and (\n{self.change.where}\n) order by t.ctid"

    def _offending(self, rows: Sequence[offenders.Offender]) -> pandas.DataFrame:
        import pandas

        shown = self.row_keys or ("ctid",)
        found = []
        for row in rows:
            selected = ", ".join(f"t.{key}" for key in shown)
            at = f"t.tableoid = {row.relation_oid} and t.ctid = '{row.ctid}'"
            answer = counting.ask(
                self.conn, f"select {selected} from {self.proposal.table} as t where {at}", timeout_ms=self.timeout_ms
            )
            found += [(*values, row.why) for values in answer.rows]
        frame = pandas.DataFrame(found, columns=[*map(names.unquoted, shown), "why"], dtype="object")
        return self._masked(frame, [*map(names.unquoted, shown)])

    def conditions(self) -> Iterator[Objection]:
        """NULLs, what does not fit, domains and checks: one scan for all of them."""
        asked = list(self._conditions())
        if not asked:
            return
        counted = ", ".join(f"count(*) filter (where {one.sql})" for one in asked)
        answer = self._answer(
            f"select {counted} from ({self.fresh}) as fresh", "the values against their columns and checks"
        )
        if isinstance(answer, Objection):
            yield answer
            return
        for one, rows in zip(asked, answer.rows[0], strict=True):
            if rows:
                yield self._objection(f"{one.says} in {_rows(rows)}", int(rows), self._sample(one.sql, one.shown))

    def _conditions(self) -> Iterator[_Condition]:
        for n, name in enumerate(self.change.values):
            column, value = self.by_name[name], proposed.new(n)
            if column.not_null or name in self.proposal.not_null:
                yield _Condition(f"The value for {name} is NULL", f"{value} is null", (value,))
            if proposed.limit(column):
                yield _Condition(
                    f"The value does not fit {name} {proposed.limit(column)}", proposed.unfit(column, value), (value,)
                )
        position = {name: n for n, name in enumerate(self.change.values)}
        checks = queries.frame(self.conn, "values/checks", **self._about)
        for check in checks.to_dict("records"):
            if check["domain_column"]:
                name = check["domain_column"]
                value = proposed.new(position[name]) if name in position else name
                yield _Condition(
                    f"The value breaks the domain constraint {check['identity']}",
                    f"({proposed.of_domain(check['condition'], value)}) is false",
                    (value,),
                )
            else:
                scope = (
                    Key("", (), "", True, int(check["relation_oid"])).rows(REL) if not self._is_root(check) else "true"
                )
                yield _Condition(
                    f"The row would break the check {check['identity']}",
                    f"(({check['condition']}) is false and {scope})",
                    tuple(self._new),
                )

    def keys(self) -> Iterator[Objection]:
        """Would two rows be equal by a unique index, or clash by an exclusion constraint?"""
        found = queries.frame(self.conn, "values/keys", **self._about)
        for index in found.to_dict("records"):
            yield from self._collisions(self._key(index))
        for key in filter(None, map(proposed.wanted, self.proposal.wanted)):
            yield from self._collisions(
                key if self._has_one_home else replace(key, relation_oid=self._root, whole=False)
            )

    def _key(self, index: Mapping[Any, Any]) -> Key:
        keys = tuple(
            f"({key}) {collation}".strip() for key, collation in zip(index["keys"], index["collations"], strict=True)
        )
        everything = self._is_root(index) and self._has_one_home
        return Key(
            str(index["identity"]),
            keys,
            str(index["predicate"]),
            bool(index["nulls_equal"]),
            0 if everything else int(index["relation_oid"]),
            bool(index["whole"]),
            () if index["usual"] else tuple(index["operators"]),
        )

    def _collisions(self, key: Key) -> Iterator[Objection]:
        present = self.proposal.table if self._is_partitioned or key.relation_oid else f"only {self.proposal.table}"
        compose = proposed.clashes if key.operators else proposed.collisions
        groups = compose(self.change, key, self.fresh, present)
        totals = "select count(*), coalesce(sum(written), 0), count(*) filter (where present > 0)"
        answer = self._answer(f"{totals} from ({groups}) as groups", key.identity)
        if isinstance(answer, Objection):
            yield answer
        elif answer.rows[0][0]:
            count, rows, held = (int(number) for number in answer.rows[0])
            staying = f", {held:,} of them held by a row that is there" if held else ""
            says = f"{_rows(rows)} would clash with another by {key.identity} ({_many(count, 'key')}{staying})"
            yield self._objection(says, rows, self._groups(key, groups))

    def _groups(self, key: Key, groups: str) -> pandas.DataFrame:
        import pandas

        answer = counting.ask(
            self.conn,
            f"select * from ({groups}) as groups order by written + present desc limit {SAMPLE}",
            timeout_ms=self.timeout_ms,
        )
        columns = [*(f"key {n + 1}" for n in range(len(key.keys))), "rows written", "rows present"]
        frame = pandas.DataFrame(list(answer.rows), columns=columns, dtype="object")
        return masking.masked(frame, columns=columns[:-2], mask=self.mask)

    def parents(self) -> Iterator[Objection]:
        """Would a value have no parent?"""
        for fk in self._references(outgoing=True):
            pairs = list(zip(fk["columns"], fk["other_columns"], fk["operators"], strict=True))
            same = " and ".join(f"p.{theirs} {operator} fresh.{ours}" for ours, theirs, operator in pairs)
            present = " and ".join(f"fresh.{ours} is not null" for ours, _, _ in pairs)
            missing = f"{present} and not exists (select from {fk['other']} as p where {same})"
            if fk["match"] == "f":
                some = " or ".join(f"fresh.{ours} is not null" for ours, _, _ in pairs)
                missing = f"({some}) and not ({present} and exists (select from {fk['other']} as p where {same}))"
            yield from self._breaking(fk, missing, f"The value has no parent in {fk['other']} ({fk['identity']})")

    def children(self) -> Iterator[Objection]:
        """Would another table's rows lose their parent, or be changed with it?"""
        position = {name: n for n, name in enumerate(self.change.values)}
        for fk in self._references(outgoing=False) if self.change.action == "update" else ():
            pairs = list(zip(fk["columns"], fk["other_columns"], fk["operators"], strict=True))
            before = {
                ours: f"fresh.{proposed.old(position[ours])}" if ours in position else f"fresh.{ours}"
                for ours, _, _ in pairs
            }
            same = " and ".join(f"{before[ours]} {operator} c.{theirs}" for ours, theirs, operator in pairs)
            moved = " or ".join(f"{before[ours]} is distinct from fresh.{ours}" for ours, _, _ in pairs)
            effect = "refuses that" if fk["on_update"] in "ar" else "would be changed with it, unseen by undo"
            says = f"Rows of {fk['other']} refer to the present value, and {fk['identity']} {effect}"
            yield from self._breaking(fk, f"({moved}) and exists (select from {fk['other']} as c where {same})", says)

    def _references(self, *, outgoing: bool) -> list[Mapping[Any, Any]]:
        found = queries.frame(self.conn, "values/references", **self._about)
        return [row for row in found.to_dict("records") if bool(row["outgoing"]) == outgoing]

    def _breaking(self, fk: Mapping[Any, Any], condition: str, says: str) -> Iterator[Objection]:
        if not self._is_root(fk):
            condition = f"{Key('', (), '', True, int(fk['relation_oid'])).rows(REL)} and {condition}"
        answer = self._answer(f"select count(*) from ({self.fresh}) as fresh where {condition}", str(fk["identity"]))
        if isinstance(answer, Objection):
            yield answer
        elif answer.rows[0][0]:
            rows = int(answer.rows[0][0])
            yield self._objection(f"{says} in {_rows(rows)}", rows, self._sample(condition, tuple(self._new)))


def _rows(count: int) -> str:
    return _many(count, "row")


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")
