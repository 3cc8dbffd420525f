"""Every error says what happened, what state the database is in, and what to do; a driver's becomes ours by its SQLSTATE."""

from __future__ import annotations

import copy
import pickle
import re

import psycopg
import pytest
import sqlalchemy
from mend import errors
from mend.errors import MendError, from_driver, sqlstate
from sqlalchemy import exc

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MendError)]


def drawn() -> dict[str, str]:
    """Each class of the tree in the room's docstring, with its parent."""
    found: dict[str, str] = {"MendError": "Exception"}
    stack: list[tuple[int, str]] = [(0, "MendError")]
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ((?:[ |]+)\+- )(\w+)", line):
            depth, name = len(match[1]), match[2]
            stack = [known for known in stack if known[0] < depth]
            found[name] = stack[-1][1]
            stack.append((depth, name))
    return found


def test_the_tree_is_drawn_as_it_is() -> None:
    assert drawn() == {kind.__name__: kind.__base__.__name__ for kind in KINDS if kind.__base__}


@pytest.mark.parametrize(("kind", "code"), [("Refused", 3), ("OutcomeUnknown", 4), ("StepFailed", 1), ("MendError", 1)])
def test_a_family_has_one_exit_code(kind: str, code: int) -> None:
    family = [other for other in KINDS if issubclass(other, getattr(errors, kind))]
    own = {"Refused": 3, "OutcomeUnknown": 4}
    expected = {next((own[base.__name__] for base in other.__mro__ if base.__name__ in own), 1) for other in family}
    assert {other.exit_code for other in family} == expected
    assert getattr(errors, kind).exit_code == code


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_default_message_is_the_docstring_and_speaks_of_the_database(kind: type[MendError]) -> None:
    error = kind()
    assert str(error) == error.message == (kind.__doc__ or "").strip()
    assert "\n" not in error.message
    assert error.message.endswith(".")


def test_facts_are_attributes_and_an_unknown_one_is_none_of_them() -> None:
    error = errors.LockNotAcquired("Locked.", sqlstate="55P03", step=2)
    assert (error.sqlstate, error.step, error.message) == ("55P03", 2, "Locked.")
    with pytest.raises(AttributeError, match="pid"):
        _ = error.pid
    assert getattr(error, "pid", None) is None


def test_an_error_survives_a_copy_and_a_pipe_to_another_process() -> None:
    error = errors.TooManyRows("Too many.", rows=7)
    for other in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert (type(other), other.message, other.rows) == (errors.TooManyRows, "Too many.", 7)


def raised(database: str, sql: str) -> exc.DBAPIError:
    """The driver's error for one statement."""
    engine = sqlalchemy.create_engine(database, poolclass=sqlalchemy.NullPool)
    with engine.connect() as conn, pytest.raises(exc.DBAPIError) as caught:
        conn.exec_driver_sql(sql)
    return caught.value


@pytest.mark.parametrize(
    ("sql", "kind", "code"),
    [
        ("select 1/0", errors.QueryFailed, "22012"),
        ("select * from nowhere", errors.QueryFailed, "42P01"),
        ("do $$ begin raise insufficient_privilege; end $$", errors.PrivilegeMissing, "42501"),
        ("do $$ begin raise lock_not_available; end $$", errors.LockNotAcquired, "55P03"),
        ("do $$ begin raise invalid_password; end $$", errors.LoginRefused, "28P01"),
        # the text says one thing, the SQLSTATE another: the SQLSTATE is right
        (
            "do $$ begin raise exception 'canceling statement due to lock timeout' using errcode = '22000'; end $$",
            errors.QueryFailed,
            "22000",
        ),
    ],
)
def test_a_driver_error_becomes_ours_by_its_sqlstate_alone(
    database: str, sql: str, kind: type[MendError], code: str
) -> None:
    error = raised(database, sql)
    ours = from_driver(error, "Reading it", "Nothing was changed.", "Look again.")
    assert type(ours) is kind
    assert ours.sqlstate == sqlstate(error) == sqlstate(error.orig) == code
    assert re.fullmatch(rf"Reading it: .+ \(SQLSTATE {code}\)\. Nothing was changed\. Look again\.", ours.message)


def test_only_the_first_line_of_what_the_server_says_is_told_because_the_others_hold_values(database: str) -> None:
    ours = from_driver(
        raised(database, "do $$ begin raise exception 'no' using detail = 'Key (email)=(ann@example.org)'; end $$"),
        "Reading",
        "So.",
    )
    assert "ann@example.org" not in ours.message
    assert "\n" not in ours.message


class Psycopg2Error(Exception):
    """psycopg2's errors call it pgcode."""

    pgcode = "40P01"


def test_every_drivers_spelling_of_the_sqlstate_is_read() -> None:
    assert sqlstate(Psycopg2Error("deadlock")) == "40P01"
    assert sqlstate(exc.DBAPIError("select 1", None, Psycopg2Error("deadlock"))) == "40P01"
    assert sqlstate(psycopg.errors.DeadlockDetected("x")) == "40P01"
    assert sqlstate(errors.StepFailed("x", sqlstate="23505")) == "23505"
    assert sqlstate(psycopg.OperationalError("server closed the connection")) == ""
    assert sqlstate(ValueError("x")) == ""
    assert sqlstate(None) == ""


def test_an_error_without_words_is_called_by_its_class() -> None:
    assert (
        from_driver(psycopg.OperationalError(""), "Asking", "Nothing was changed.").message
        == "Asking: OperationalError. Nothing was changed."
    )
