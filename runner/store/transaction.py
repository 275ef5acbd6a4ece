"""One transaction: named queries in, plain rows out, and no needless round trips."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from importlib import resources
from typing import Any, TypeAlias

import psycopg
from psycopg import sql
from psycopg.rows import DictRow

from runner.store.connection import GRACE_S, Connection
from runner.words.errors import Unconfirmed

COMMITTED = "COMMIT"
SHUTDOWN = "57P"
"""SQLSTATE class of a server that goes away; it may have committed first (errcodes, class 57)."""
Text: TypeAlias = str | sql.Composed
Statement: TypeAlias = tuple[Text, Mapping[str, Any]]
Cursor: TypeAlias = psycopg.AsyncCursor[DictRow]
_BLOCK = re.compile(r"^-- (name|part): (\w+)\n", re.MULTILINE)
_USED_PART = re.compile(r"\{([a-z_]+)\}")
_PLANNED_ANEW = re.compile(r"%\(\w+\)s(::\S+)? IS NULL OR |^-- Planned anew", re.MULTILINE)


@cache
def _file(resource: str) -> Mapping[str, str]:
    """Return a file's statements by name. A `part` of some is written once, and used as {part}."""
    text = resources.files("runner.store").joinpath("queries", f"{resource}.sql").read_text("utf-8")
    _, *blocks = _BLOCK.split(text)
    found = list(zip(blocks[::3], blocks[1::3], blocks[2::3], strict=True))
    parts = {name: body.strip() for kind, name, body in found if kind == "part"}
    return {
        name: _USED_PART.sub(lambda used: parts[used[1]], body)
        for kind, name, body in found
        if kind == "name"
    }


def query(name: str) -> str:
    """Return the SQL named `resource.query` from `queries/resource.sql`."""
    resource, _, key = name.partition(".")
    return _file(resource)[key]


@cache
def is_planned_anew(statement: str) -> bool:
    """Return whether PostgreSQL must plan a statement anew for its values, each time it runs.

    That is so with optional filters, and where the statement says so: a plan for all values at once
    uses none of their indexes, and reads every row to find the few that are wanted.
    """
    return _PLANNED_ANEW.search(statement) is not None


class Later:
    """A statement that is sent with the next one; its rows are there after that."""

    def __init__(self, text: Text, values: Mapping[str, Any]) -> None:
        self.text = text
        self.values = values
        self.cursor: Cursor | None = None
        self.failure: psycopg.Error | None = None

    async def one(self) -> DictRow | None:
        """Return the first row, or None.

        Raises RuntimeError if nothing has been sent since, and psycopg's error if the statement was
        sent after the COMMIT and failed: the change is stored then.
        """
        if self.failure is not None:
            raise self.failure
        if self.cursor is None:
            raise RuntimeError("this statement has not been sent")
        return await self.cursor.fetchone()


class Transaction:
    """One open transaction: named queries in, plain rows out.

    If nobody waits for a statement's answer, as for the transaction's own BEGIN, it is sent
    together with the next statement or with the end: a round trip costs more than most statements.

    Audit records are collected and written right before the COMMIT, in its round trip. Writing one
    locks the head of the tenant's chain. So that lock is never held while the transaction waits for
    a row: two transactions that lock the same two in different order would deadlock.
    """

    def __init__(
        self,
        connection: Connection,
        begin: str | None = None,
        first: Sequence[Statement] = (),
        *,
        single: bool = False,
    ) -> None:
        """With `single`, the first exchange is all of it."""
        self._connection = connection
        self._begin = begin
        self._is_one = begin is not None
        self._single = single
        self._ahead = [Later(*each) for each in first]
        self._records: list[str] = []
        self._behind: list[Later] = []
        self._ended = False

    async def one(self, name: str, /, **values: Any) -> DictRow | None:
        """Return the first row, or None."""
        return await (await self._execute(query(name), values)).fetchone()

    async def all(self, name: str, /, **values: Any) -> list[DictRow]:
        """Return every row."""
        return await (await self._execute(query(name), values)).fetchall()

    async def run(self, name: str, /, **values: Any) -> int:
        """Return how many rows the statement touched."""
        return (await self._execute(query(name), values)).rowcount

    def later(self, name: str, /, **values: Any) -> Later:
        """Send the statement with the next one. If it fails, the next one or the commit raises."""
        statement = Later(query(name), values)
        self._ahead.append(statement)
        return statement

    def afterwards(self, name: str, /, **values: Any) -> Later:
        """Send the statement after the COMMIT: it sees what was stored, as a query of no tenant.

        If it fails, only whoever asks for its rows hears of that: the change is stored.
        """
        statement = Later(query(name), values)
        self._behind.append(statement)
        return statement

    def append_record(self, body: str) -> None:
        """Append a record to the tenant's audit log at the end, after those given before."""
        if not self._is_one:
            raise RuntimeError("single statements have no end to write a record at")
        self._records.append(body)

    async def append_record_now(self, body: str) -> DictRow:
        """Append a record at once, after those given before; return its number and hash.

        Locks the head of the tenant's chain until the end: do not lock contended rows after this.
        """
        (*_, cursor) = await self._send(*self._take_records(), _record(body))
        row = await cursor.fetchone()
        if row is None:
            raise RuntimeError("PostgreSQL appended a record and returned none")
        return row

    def patiently(self, bound: timedelta) -> None:
        """Let each statement from here on take this long, instead of the default."""
        milliseconds = str(bound // timedelta(milliseconds=1))
        self.later("session.bound_statements", milliseconds=milliseconds)
        self._connection.answer_s = bound.total_seconds() + GRACE_S

    async def together(self, *statements: tuple[str, Mapping[str, Any]]) -> list[list[DictRow]]:
        """Run independent statements in one round trip; return the rows of each."""
        cursors = await self._send(*((query(name), values) for name, values in statements))
        return [await cursor.fetchall() for cursor in cursors]

    async def flush(self) -> None:
        """Send the statements that wait for the next one."""
        await self._send()

    async def each(self, name: str, /, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run the statement once for each of `rows`, in one round trip."""
        await self._send(*((query(name), row) for row in rows))

    async def commit(self) -> None:
        """End the transaction, and send what was still waiting.

        Raises RuntimeError if a statement had failed, and Unconfirmed if PostgreSQL goes away
        before it answers.
        """
        behind, records = self._behind, self._take_records()
        cursors: list[Cursor] = []
        with unconfirmed():
            try:
                await self._send(
                    *records,
                    (query("session.commit"), {}),
                    *((each.text, each.values) for each in behind),
                    sent=cursors,
                )
            except psycopg.Error as error:
                # PostgreSQL answers in order, so the COMMIT's answer came before the failure, even
                # if that is a lost connection.
                if len(cursors) <= len(records) or cursors[len(records)].statusmessage != COMMITTED:
                    raise
                self._ended = True
                for each in behind:
                    each.failure = error
                return
        commit, *told = cursors[len(records) :]
        if commit.statusmessage != COMMITTED:
            raise RuntimeError("a statement of this transaction had failed: nothing is stored")
        self._ended = True
        for each, cursor in zip(behind, told, strict=True):
            each.cursor = cursor

    def _take_records(self) -> list[Statement]:
        records, self._records = self._records, []
        return [_record(each) for each in records]

    async def _execute(self, statement: Text, values: Mapping[str, Any]) -> Cursor:
        (cursor,) = await self._send((statement, values))
        return cursor

    async def _send(self, *statements: Statement, sent: list[Cursor] | None = None) -> list[Cursor]:
        """Return the statements' cursors. What was waiting goes first, in the same round trip.

        They are in `sent`, too, which a failure does not take away.
        """
        cursors = [] if sent is None else sent
        if self._ended:
            raise RuntimeError("this transaction has ended: open another")
        self._ended = self._single
        ahead, self._ahead = self._ahead, []
        if self._begin is not None:
            ahead.insert(0, Later(self._begin, {}))
            self._begin = None
        if not ahead and len(statements) <= 1:
            cursors += [await self._run(*each) for each in statements]
            return cursors
        try:
            async with self._connection.exchange():
                for each in ahead:
                    each.cursor = await self._run(each.text, each.values)
                for statement in statements:
                    cursors.append(await self._run(*statement))
        except IndexError as error:
            # A deferred check fails with the Sync: psycopg looks for the statement that the error
            # belongs to, and finds none if it came with the results.
            raise psycopg.OperationalError("a check at the end failed") from error
        return cursors

    async def _run(self, statement: Text, values: Mapping[str, Any]) -> Cursor:
        if not isinstance(statement, str):
            return await self._connection.execute(statement, values)
        # Otherwise psycopg prepares frequent statements, and PostgreSQL may then plan them only
        # once.
        prepare = False if is_planned_anew(statement) else None
        return await self._connection.execute(statement.encode(), values, prepare=prepare)


@contextmanager
def unconfirmed() -> Iterator[None]:
    """Raise Unconfirmed if PostgreSQL goes away before it confirms a change."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        if error.sqlstate and not error.sqlstate.startswith(SHUTDOWN):
            raise  # PostgreSQL's own answer: it refused, and stored nothing.
        raise Unconfirmed(
            f"PostgreSQL went away ({type(error).__name__}) before it confirmed the change, "
            "which may be stored or not: look before you try again"
        ) from error


def _record(body: str) -> Statement:
    return query("audit.append"), {"body": body}
