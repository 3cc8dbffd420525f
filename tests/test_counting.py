"""A count is exact where that is cheap, and says so where it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy
from mend.errors import PrivilegeMissing, QueryFailed
from mend.values import counting
from mend.values.counting import Count
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

Reading = Callable[[], Connection]
Prepared = Callable[[str], None]
#: Planned for one row, and takes as long as one likes.
SLOW = "(select count(*) from generate_series(1, 30000000)) > 0"


def test_a_count_is_exact_with_an_estimate_beside_it(prepared: Prepared, reading: Reading) -> None:
    prepared("create table t as select case when i % 4 = 0 then i end as a from generate_series(1, 1000) i; analyze t")
    count = counting.of_table(reading(), "public.t", "a is null")
    assert (count.rows, count.exact, count.why, count.best) == (750, True, "", 750)
    assert 700 < count.estimate < 800, "null_frac tells it"
    assert count.says == "750"


def test_partitions_and_strange_names_are_counted_as_well(prepared: Prepared, reading: Reading) -> None:
    prepared("""create schema "S s"; create table "S s"."a%b" ("C:c" int) partition by range ("C:c");
        create table p1 partition of "S s"."a%b" for values from (0) to (10); create table p2 partition of "S s"."a%b" for values from (10) to (20);
        insert into "S s"."a%b" select generate_series(0, 19)""")
    assert counting.of_table(reading(), '"S s"."a%b"', 't."C:c" % 2 = 0').rows == 10
    assert counting.of_table(reading(), 'only "S s"."a%b"').rows == 0
    assert counting.of_query(reading(), 'select "C:c" % 3 from "S s"."a%b" group by 1').rows == 3


def test_a_count_stops_at_a_bound(prepared: Prepared, reading: Reading) -> None:
    prepared("create table t as select generate_series(1, 1000) as a")
    assert counting.of_table(reading(), "public.t", at_most=1000).rows == 1000
    count = counting.of_table(reading(), "public.t", at_most=999)
    assert (count.rows, count.exact, count.estimate >= 1000) == (None, False, True)
    assert count.why == "more than 999; the count stopped there"


def test_a_count_that_takes_too_long_is_an_estimate(prepared: Prepared, reading: Reading) -> None:
    prepared("create table t as select generate_series(1, 1000) as a; analyze t")
    count = counting.of_table(reading(), "public.t", SLOW, timeout_ms=100)
    assert (count.rows, count.exact, count.why) == (None, False, "the count did not end within 0.1 s")
    assert count.best == count.estimate > 0
    assert count.says.startswith("about ")
    assert counting.of_table(reading(), "public.t").rows == 1000, "the session goes on"


def test_a_timeout_is_only_borrowed(prepared: Prepared, reading: Reading) -> None:
    prepared("create table t as select 1 as a")
    before = reading().exec_driver_sql("show statement_timeout").scalar()
    counting.of_table(reading(), "public.t", SLOW, timeout_ms=100)
    counting.of_table(reading(), "public.t", timeout_ms=50)
    assert reading().exec_driver_sql("show statement_timeout").scalar() == before


def test_a_table_that_somebody_locks_is_not_waited_for(database: str, prepared: Prepared, reading: Reading) -> None:
    prepared("create table t as select 1 as a")
    other = sqlalchemy.create_engine(database, poolclass=sqlalchemy.pool.NullPool)
    with other.begin() as conn:
        conn.exec_driver_sql("lock table t in access exclusive mode")
        count = counting.of_table(reading(), "public.t")
        conn.rollback()
    assert (count.rows, count.why) == (None, "the count waited for a lock that another session holds")


def test_what_is_wrong_is_an_error_and_not_a_number(prepared: Prepared, reading: Reading) -> None:
    prepared("create table t as select 1 as a; create role counter_of_values")
    with pytest.raises(QueryFailed, match=r"column .* does not exist") as caught:
        counting.of_table(reading(), "public.t", "nope")
    assert caught.value.sqlstate == "42703"
    try:
        reading().exec_driver_sql("set local role counter_of_values")
        with pytest.raises(PrivilegeMissing):
            counting.of_table(reading(), "public.t")
    finally:
        reading().rollback()
        prepared("drop role counter_of_values")


def test_a_composed_question_takes_percent_signs_and_colons_as_they_are(reading: Reading) -> None:
    answer = counting.ask(reading(), "select 'a%s:b%%' as \"x%\", 7 % 4 as n")
    assert (answer.columns, answer.rows, answer.why) == (("x%", "n"), [("a%s:b%%", 3)], "")
    with pytest.raises(DBAPIError):
        counting.ask(reading(), "select 1/0")
    assert counting.ask(reading(), "select 1").rows == [(1,)]


@pytest.mark.parametrize(
    ("count", "says"),
    [(Count(0, 5, True), "0"), (Count(None, 0, False, "why"), "about 0 (why)"), (Count(1234567, 1, True), "1,234,567")],
)
def test_a_count_says_itself(count: Count, says: str) -> None:
    assert count.says == says
