"""What error texts look like, as data: one frozen row per wording, checked on PostgreSQL 13-18 and Alembic 1.7-1.20.

Wordings are English (``lc_messages = en_US`` or ``C``); a server that speaks another language is recognised by its SQLSTATE
or exception class alone, with less confidence.  Named groups become parameters: table, columns, constraint, revision, pids.
``when`` narrows a wording to what the text is about: ``upgrade`` or ``downgrade`` (an Alembic run shows), ``alembic`` (either,
or any frame of Alembic), ``runtime`` (neither).  ``alone`` is the confidence when only the SQLSTATE or class is there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

FAILED, NOT_NULL, UNIQUE, FOREIGN = (
    "failed_migration",
    "not_null_violation",
    "unique_violation",
    "foreign_key_violation",
)
DEADLOCK, CONFLICT, SLOW, ROLLBACK = "deadlock", "migration_conflict", "slow_migration", "rollback_failure"
LOSS, SKEW, MISMATCH = "data_loss", "version_skew", "environment_mismatch"
MODES = (FAILED, NOT_NULL, UNIQUE, FOREIGN, DEADLOCK, CONFLICT, SLOW, ROLLBACK, LOSS, SKEW, MISMATCH)

When = Literal["any", "upgrade", "downgrade", "alembic", "runtime"]


@dataclass(frozen=True)
class Signature:
    """One wording of one failure mode."""

    slug: str
    sqlstate: str
    confidence: float
    says: str
    pattern: str
    when: When = "any"
    alone: float = 0.0
    regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", re.compile(self.pattern, re.MULTILINE))


def _q(group: str) -> str:
    """A name in double quotes, as PostgreSQL prints it."""
    return rf'"(?P<{group}>[^"\n]{{1,200}})"'


_COLUMN_OF = rf"column {_q('columns')} of relation {_q('table')}"
_ID = r"['\"]?(?P<revision>[\w.-]{1,64})['\"]?"
_EXISTS = r"already exists(?!, skipping)"

SIGNATURES: tuple[Signature, ...] = (
    # objects that are there already: the retry of a half-applied revision
    Signature(FAILED, "42701", 0.85, "a column is there already", rf"{_COLUMN_OF} {_EXISTS}", alone=0.6),
    Signature(FAILED, "42P07", 0.80, "a relation is there already", rf"(?<! of )(?<! for )relation {_q('relation')} {_EXISTS}", alone=0.55),
    Signature(FAILED, "42710", 0.75, "a type is there already", rf"type {_q('type')} {_EXISTS}", alone=0.5),
    Signature(ROLLBACK, "42710", 0.40, "a type may have been left by a downgrade", rf"type {_q('type')} {_EXISTS}"),
    Signature(FAILED, "42710", 0.80, "a constraint or trigger is there already", rf"(?:constraint|trigger|policy|rule) {_q('constraint')} for (?:relation|table) {_q('table')} {_EXISTS}"),
    Signature(FAILED, "42710", 0.60, "an object is there already", rf"(?:extension|publication|collation|statistics object) {_q('object')} {_EXISTS}"),
    Signature(FAILED, "42P06", 0.65, "a schema is there already", rf"schema {_q('schema')} {_EXISTS}", alone=0.45),
    Signature(FAILED, "42723", 0.65, "a function is there already", rf"function {_q('function')} {_EXISTS}", alone=0.45),
    Signature(FAILED, "42P16", 0.55, "a primary key is there already", rf"multiple primary keys for table {_q('table')} are not allowed"),
    Signature(FAILED, "42703", 0.50, "a column that the revision changes is gone", rf"{_COLUMN_OF} does not exist", when="upgrade"),
    Signature(FAILED, "42704", 0.50, "an object that the revision drops is gone", rf"(?:index|constraint) {_q('constraint')}(?: of relation {_q('table')})? does not exist", when="upgrade"),
    # the ways in which a revision is applied by half
    Signature(FAILED, "55000", 0.80, "an index that was left invalid is used", rf"index {_q('constraint')} is not valid"),
    Signature(FAILED, "55P04", 0.65, "an enum value is used before it was committed", rf"unsafe use of new value {_q('value')} of enum type \S+", alone=0.6),
    Signature(FAILED, "25001", 0.65, "a statement needs its own transaction", r"(?:CREATE INDEX CONCURRENTLY|DROP INDEX CONCURRENTLY|REINDEX CONCURRENTLY|VACUUM|ALTER SYSTEM|CREATE DATABASE) cannot (?:run inside a transaction block|be executed from a function)", alone=0.3),
    Signature(FAILED, "25P02", 0.40, "an error before it was swallowed; the true cause is in the server's log", r"current transaction is aborted, commands ignored until end of transaction block", when="alembic", alone=0.4),
    Signature(FAILED, "", 0.85, "env.py runs SQL before context.configure(), so nothing is ever committed", r"in autocommit_block\n(?:[^\n]*\n){1,3}?\s*AssertionError"),
    Signature(FAILED, "08006", 0.45, "the connection was lost during the run", r"server closed the connection unexpectedly|connection was closed in the middle of operation", when="alembic"),
    # duplicates
    Signature(CONFLICT, "23505", 0.85, "two migrators ran at once", r'unique constraint "(?:pg_type_typname_nsp_index|pg_class_relname_nsp_index|pg_namespace_nspname_index|alembic_version_pkc)"'),
    Signature(UNIQUE, "23505", 0.92, "an index cannot be built over duplicates", rf"could not create unique index {_q('constraint')}", alone=0.6),
    Signature(UNIQUE, "23505", 0.70, "a row has a key that is there already", rf"duplicate key value violates unique constraint (?!\"(?:pg_|alembic_version)){_q('constraint')}"),
    Signature(UNIQUE, "0A000", 0.55, "a partitioned table cannot have its index built concurrently", rf"cannot create index on partitioned table {_q('table')} concurrently"),
    # NULLs
    Signature(NOT_NULL, "23502", 0.95, "a column holds NULLs", rf"{_COLUMN_OF} contains null values", alone=0.65),
    Signature(NOT_NULL, "23502", 0.85, "a column holds NULLs", rf"column {_q('columns')} contains null values"),
    Signature(NOT_NULL, "23502", 0.75, "a row has a NULL", rf"null value in column {_q('columns')}(?: of relation {_q('table')})? violates not-null constraint"),
    Signature(NOT_NULL, "23514", 0.75, "rows break a check", rf"check constraint {_q('constraint')}(?: of relation {_q('table')})? is violated by some row", alone=0.5),
    Signature(NOT_NULL, "23514", 0.60, "a row breaks a check", rf"new row for relation {_q('table')} violates check constraint {_q('constraint')}"),
    # orphans
    Signature(FOREIGN, "23503", 0.92, "rows point at parents that are not there", rf"insert or update on table {_q('table')} violates foreign key constraint {_q('constraint')}", alone=0.65),
    Signature(FOREIGN, "23503", 0.70, "a parent that is still pointed at is removed", rf"update or delete on table {_q('parent')} violates (?:RESTRICT setting of )?foreign key constraint {_q('constraint')} on table {_q('table')}"),
    Signature(FOREIGN, "42830", 0.85, "the parent's key is not unique", rf"there is no unique constraint matching given keys for referenced table {_q('parent')}", alone=0.7),
    Signature(FOREIGN, "42809", 0.80, "a key on a partitioned table cannot be NOT VALID here", rf"cannot add NOT VALID foreign key on partitioned table {_q('table')} referencing relation {_q('parent')}"),
    # locks
    Signature(DEADLOCK, "40P01", 0.95, "sessions waited for each other", r"\bdeadlock detected\b", alone=0.85),
    Signature(DEADLOCK, "55P03", 0.90, "a lock was not granted in time", r"canceling statement due to lock timeout", alone=0.75),
    Signature(DEADLOCK, "55P03", 0.85, "a lock was not granted", rf"could not obtain lock on (?:relation|row in relation) {_q('table')}"),
    Signature(DEADLOCK, "25P03", 0.65, "a session idle in its transaction was ended", r"terminating connection due to idle-in-transaction timeout", alone=0.6),
    Signature(DEADLOCK, "25P04", 0.60, "a transaction was ended for its length", r"terminating connection due to transaction timeout", alone=0.55),
    Signature(DEADLOCK, "57P01", 0.50, "the session was terminated", r"terminating connection due to administrator command", alone=0.4),
    Signature(SLOW, "57014", 0.75, "a statement took longer than its timeout", r"canceling statement due to statement timeout", alone=0.45),
    Signature(DEADLOCK, "57014", 0.40, "the time may have gone in waiting for a lock", r"canceling statement due to (?:statement timeout|user request)"),
    Signature(SLOW, "57014", 0.50, "a statement was cancelled by hand", r"canceling statement due to user request"),
    Signature(SLOW, "53100", 0.50, "the disk is full", r"could not (?:extend|write to) file [^\n]{0,200}No space left on device", alone=0.4),
    # ways back
    Signature(ROLLBACK, "2BP01", 0.92, "other objects depend on what is dropped", r"cannot drop (?:column (?P<columns>\S+) of )?(?:(?:foreign |materialized )?(?:table|view) (?P<table>\S+)|[^\n]{1,200}?) because (?:other objects depend on (?:it|them)|[^\n]{1,200} requires it)", alone=0.8),
    Signature(ROLLBACK, "0A000", 0.80, "a view or a generated column depends on the column", r"cannot alter type of a column used (?:by|in) an? [^\n]{1,60}"),
    Signature(ROLLBACK, "", 0.92, "the revision to go back to is not below the current one", r"Destination (?P<revision>\S+) is not a valid downgrade target from current head\(s\)|Not a valid downgrade target from current heads"),
    Signature(ROLLBACK, "", 0.90, "there are not that many revisions to go back", r"Relative revision \S+ didn't produce \d+ migrations"),
    Signature(ROLLBACK, "", 0.85, "it is not said which head to go back from", r"downgrade -1 from multiple heads is ambiguous"),
    Signature(ROLLBACK, "", 0.92, "the revision says that it cannot be taken back", r"in downgrade\n(?:[^\n]*\n){1,4}?\s*NotImplementedError"),
    Signature(ROLLBACK, "", 0.90, "the revision has no downgrade()", r"module '[^'\n]{1,200}' has no attribute 'downgrade'"),
    # content that a script is about to destroy
    Signature(LOSS, "", 0.55, "a script drops, empties or deletes from what may hold content", r"^(?:ALTER TABLE (?:ONLY )?(?P<table>\S{1,130}) DROP COLUMN [^\n]{1,130}|DROP TABLE [^\n]{1,200}|TRUNCATE [^\n]{1,200}|DELETE FROM [^\n]{1,200});$", when="alembic"),
    Signature(LOSS, "", 0.75, "a linter says that a migration drops a column or a table", r"\bban-drop-(?:column|table|database)\b"),
    # code and database are of different versions
    Signature(SKEW, "42703", 0.75, "the application uses a column that is not there", rf"column (?:{_q('columns')}|(?:\w{{1,63}}\.)?(?P<column>\w{{1,63}}))(?: of relation {_q('table')})? does not exist", when="runtime", alone=0.5),
    Signature(SKEW, "42P01", 0.70, "the application uses a table that is not there", rf"(?<! of )relation (?!\"(?:\w+\.)?alembic_version\"){_q('table')} does not exist", when="runtime", alone=0.45),
    Signature(SKEW, "23502", 0.88, "the application's INSERT does not know a NOT NULL column", rf"null value in column {_q('columns')}(?: of relation {_q('table')})? violates not-null constraint(?=[\s\S]{{0,3000}}?\b(?i:insert into) [^\s(]{{1,130}} ?\((?![^)]*\b(?P=columns)\b)[^)]*\) *(?i:values|select))", when="runtime"),
    Signature(SKEW, "0A000", 0.92, "sessions still use plans made before the change", r"cached plan must not change result type|cached statement plan is invalid due to a database schema or configuration change"),
    Signature(SKEW, "", 0.60, "the database is behind its revision files", r"Target database is not up to date|Database is not on all head revisions", when="any"),
    Signature(MISMATCH, "", 0.50, "the database is not where its files say", r"Target database is not up to date"),
    Signature(MISMATCH, "", 0.88, "models and database differ", r"New upgrade operations detected"),
    Signature(MISMATCH, "42703", 0.55, "a revision meets a database without its column", rf"column {_q('columns')}(?: of relation {_q('table')})? does not exist", when="alembic", alone=0.4),
    Signature(MISMATCH, "42P01", 0.60, "a revision meets a database without its table", rf"(?<! of )relation (?!\"(?:\w+\.)?alembic_version\"){_q('table')} does not exist", when="alembic", alone=0.4),
    Signature(MISMATCH, "42704", 0.50, "a type that should be there is not", rf"type {_q('type')} does not exist"),
    Signature(MISMATCH, "42501", 0.70, "the role lacks a privilege here", r"permission denied for (?:schema|table|relation|sequence|database|function|view) \S+|must be owner of \w+ \S+", alone=0.55),
    Signature(MISMATCH, "25006", 0.85, "this server or session is read-only", r"cannot execute [A-Z ]{2,60} in a read-only transaction", alone=0.7),
    Signature(MISMATCH, "0A000", 0.80, "an extension is missing on this server", r"extension \"[^\"\n]{1,63}\" is not available"),
    Signature(MISMATCH, "58P01", 0.80, "an extension is missing on this server", r"could not open extension control file"),
    Signature(MISMATCH, "", 0.75, "the server's collations changed below the database", r"database \"[^\"\n]{1,63}\" has a collation version mismatch"),
    # the revision graph and the version table
    Signature(CONFLICT, "", 0.96, "the version table names a revision that no file has", rf"Can't locate revision identified by {_ID}|No such revision or branch '(?P<branch>[^'\n]{{1,64}})'"),
    Signature(CONFLICT, "", 0.96, "a revision's parent file is missing", r"Revision (?P<revision>\S{1,64}) referenced from [^\n]{1,300}? is not present"),
    Signature(CONFLICT, "", 0.85, "a revision's parent file is missing", r"alembic[/\\]script[/\\]revision\.py(?:[^\n]*\n){1,12}?\s*KeyError: '(?P<revision>[^'\n]{1,64})'"),
    Signature(CONFLICT, "", 0.96, "there are several heads", r"Multiple head(?:s| revisions) are present"),
    Signature(CONFLICT, "", 0.90, "two files have the same revision id", r"Revision (?P<revision>\S{1,64}) is present more than once"),
    Signature(CONFLICT, "", 0.95, "the version table holds a revision and its ancestor", r"Requested revision (?P<revision>\S{1,64}) overlaps with other requested revisions \S{1,64}"),
    Signature(CONFLICT, "", 0.95, "revisions refer to each other in a circle", r"(?:Dependency )?(?:[Cc]ycle|[Ll]oop|Self-[Ll]oop) is detected in revisions? "),
    Signature(CONFLICT, "", 0.90, "the version table was changed by someone else, or holds a row twice", r"Online migration expected to match one row when (?:updating '[^'\n]{1,64}' to '(?P<revision>[^'\n]{1,64})'|deleting '[^'\n]{1,64}') in '[^'\n]{1,130}'"),
    Signature(CONFLICT, "22001", 0.85, "a revision id is longer than the version table's 32 characters", r"value too long for type character varying\(32\)(?=[\s\S]{0,2000}?(?i:UPDATE|INSERT INTO) \S*alembic_version)"),
    Signature(CONFLICT, "", 0.75, "a revision file is broken", r"[/\\]versions[/\\][^\n\"]{1,200}\.py\"?, line \d+(?:[^\n]*\n){1,5}?\s*(?:SyntaxError|IndentationError):"),
    Signature(CONFLICT, "", 0.75, "a revision file is broken", r"module '[^'\n]{1,200}' has no attribute '(?:upgrade|down_revision|revision)'|Could not determine revision id from filename"),
)  # fmt: skip

# Exception class -> SQLSTATE, as psycopg and psycopg2 name them; asyncpg adds "Error" and spells SQL in capitals
CLASSES: dict[str, str] = {
    "duplicatecolumn": "42701", "duplicatetable": "42P07", "duplicateobject": "42710", "duplicateschema": "42P06", "duplicatefunction": "42723",
    "invalidtabledefinition": "42P16", "uniqueviolation": "23505", "notnullviolation": "23502", "checkviolation": "23514",
    "foreignkeyviolation": "23503", "restrictviolation": "23001", "invalidforeignkey": "42830", "deadlockdetected": "40P01",
    "locknotavailable": "55P03", "querycanceled": "57014", "adminshutdown": "57P01", "idleintransactionsessiontimeout": "25P03",
    "transactiontimeout": "25P04", "diskfull": "53100", "unsafenewenumvalueusage": "55P04", "activesqltransaction": "25001",
    "infailedsqltransaction": "25P02", "dependentobjectsstillexist": "2BP01", "undefinedcolumn": "42703", "undefinedtable": "42P01",
    "undefinedobject": "42704", "featurenotsupported": "0A000", "invalidcachedstatement": "0A000", "stringdatarighttruncation": "22001",
    "insufficientprivilege": "42501", "readonlysqltransaction": "25006", "undefinedfile": "58P01", "wrongobjecttype": "42809", "objectnotinprerequisitestate": "55000",
}  # fmt: skip

STATES = frozenset(CLASSES.values()) | {signature.sqlstate for signature in SIGNATURES if signature.sqlstate}
