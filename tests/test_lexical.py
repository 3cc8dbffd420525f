"""What cannot be read with certainty is refused; what is read stays between our parentheses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mend.postgres.server import Server
from mend.values import lexical
from mend.values.lexical import Unreadable, tokens


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("lower(t.Name)", ["lower", "(", "t", ".", "name", ")"]),
        ("\"We \"\"Ird\" || 'it''s'", ['We "Ird', "||", "'it''s'"]),
        ("ÄRGER", ["Ärger"[0].upper() + "rger"]),
        ("a=-1", ["a", "=", "-", "1"]),
        ("a@-1", ["a", "@-", "1"]),
        ("x'1F' || B'01' || N'n'", ["x'1F'", "||", "B'01'", "||", "N'n'"]),
        (r"E'\'' || 'C:\'", [r"E'\''", "||", r"'C:\'"]),
        ("1e-5+.5+1_000+0x1F", ["1e-5", "+", ".5", "+", "1_000", "+", "0x1F"]),
        ("a::varchar(5)[]", ["a", "::", "varchar", "(", "5", ")", "[", "]"]),
    ],
)
def test_a_text_is_cut_as_postgresql_cuts_it(text: str, read: list[str]) -> None:
    assert [token.value for token in tokens(text)] == read
    assert all(text[token.at :].startswith(token.text) for token in tokens(text))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("1; drop table t", "semicolon"),
        ("1); drop table t; --", "semicolon"),
        ("1 -- comment", "comment"),
        ("1 /* comment */", "comment"),
        ("1 +/**/ 2", "comment"),
        ("1 *-- 2", "comment"),
        ("(1", "not closed"),
        ("1)", "not opened"),
        ("([1)]", "not opened"),
        ("'a", "quote is not closed"),
        ("'a''", "quote is not closed"),
        (r"E'a\'", "quote is not closed"),
        ('"a', "quote is not closed"),
        ('""', "quote is not closed"),
        ("$$a$$", "dollar"),
        ("$tag$a$tag$", "dollar"),
        ("$1", "dollar"),
        (":name", "colon"),
        ("a[1:2]", "colon"),
        ("U&'\\0061'", "U&"),
        ('u&"a"', "U&"),
        ("'a' 'b'", "side by side"),
        ("E'a'\n'b'", "side by side"),
        ("f(a => 1)", "by name"),
        ("‘unknown’", "U\\+2018"),
        ("a\u00a0b", "U\\+00A0"),
        ("a\u202eb", "invisible character U\\+202E"),
        ("'a\u200bb'", "invisible character U\\+200B"),
        ("a\0b", "invisible character U\\+0000"),
        ("'\ud800'", "surrogate"),
        ("a\\b", "is not SQL"),
        ("1or 2", "is not SQL"),
        ("a" * 64, "63 bytes"),
        ('"' + "é" * 32 + '"', "63 bytes"),
        ("1" * (lexical.LONGEST + 1), "10,001 characters"),
        ("(" * 21 + "1" + ")" * 21, "more than 20 deep"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(text: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        tokens(text)


def test_the_top_level_commas_part_a_list() -> None:
    text = "a, f(b, c), 'd,e', array[1,2]"
    cuts = lexical.parts(tokens(text), text)
    assert [text[start:end].strip() for start, end in cuts] == ["a", "f(b, c)", "'d,e'", "array[1,2]"]


FRAGMENTS = ["'", "''", "E'", "\\", "\\'", '"', '""', "(", ")", "[", "]", ",", "--", "/*", "*/", "\n", "\r", " ", "$$", "$a$", "a", "1", "U&", "u&'", "B'", "x'", "N'",
             ";", ":", "::", "||", "-", "+", "=", "null", "text", "é", "\u00a0", "\u2028", "\f", "\v", "uescape", "!", "e", "_", "$", ".", "union", "select"]  # fmt: skip


@pytest.fixture(scope="module")
def conn(server: Server) -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine(server.url("postgres"), poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as conn:
        yield conn


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=12).map("".join))
def test_nothing_that_is_accepted_gets_out_of_its_parentheses(conn: sqlalchemy.Connection, text: str) -> None:
    """Whatever stands between them, the server finds our columns before and behind, each once; or it refuses the whole."""
    try:
        found = tokens(text)
    except Unreadable:
        return
    sql = f"select 'before' as b, (\n{text}\n) as x, 'behind' as c from (values (1, '2', 3)) as t (a, e, n) limit 1"
    plain = [token.text for token in found if token.kind == "string" and token.text[0] not in "eE"]
    for rules in ("on",) if any("\\" in text for text in plain) else ("on", "off"):
        conn.exec_driver_sql(f"set standard_conforming_strings = {rules}")
        try:
            row = conn.exec_driver_sql(sql.replace("%", "%%")).fetchall()
        except sqlalchemy.exc.DBAPIError:
            conn.rollback()
            continue
        assert [(one[0], one[-1], len(one)) for one in row] == [("before", "behind", 3)]
