"""Connections and transactions. Every transaction belongs to one tenant, or to none.

`set_config(…, is_local => true)` sets the tenant, which ends with the transaction. So a pooled
connection carries nothing over, even after an error or a cancellation.

A connection goes back to the pool only in a known state (`connection`).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Self
from uuid import UUID

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from pydantic import SecretStr

from runner.store.connection import DEAD_PEER, STATEMENT_TIMEOUT, Connection, check
from runner.store.transaction import Statement, Transaction, query, unconfirmed
from runner.words.errors import StoreUnavailable

CONNECT_TIMEOUT_S = 3
PASSING = frozenset({"08", "25", "40", "53", "55", "57", "58"})
"""SQLSTATE classes of errors that pass by themselves: connections, read-only standbys, conflicts,
full resources, locks, operators and disks. Class 54 does not: a row stays too large."""


class Database:
    """A pool of connections of one login role."""

    def __init__(self, url: SecretStr, *, max_size: int = 10) -> None:
        self._pool = AsyncConnectionPool[Connection](
            url.get_secret_value(),
            connection_class=Connection,
            min_size=1,
            max_size=max_size,
            open=False,
            timeout=CONNECT_TIMEOUT_S,
            reconnect_timeout=10.0,
            check=check,
            kwargs={
                "row_factory": dict_row,
                "autocommit": True,
                "connect_timeout": CONNECT_TIMEOUT_S,
                **DEAD_PEER,
                "options": f"-c statement_timeout={STATEMENT_TIMEOUT // timedelta(milliseconds=1)}",
            },
        )

    async def __aenter__(self) -> Self:
        # Do not wait for it: a process that starts before PostgreSQL becomes ready together with
        # it.
        await self._pool.open(wait=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def tenant(
        self, tenant_id: UUID, *, snapshot: bool = False
    ) -> AsyncIterator[Transaction]:
        """Open a transaction that sees and writes only rows of `tenant_id`.

        With `snapshot`, all its reads see the same moment, and it cannot write. Raises
        StoreUnavailable if PostgreSQL does not answer. Nothing is stored then, unless the error is
        Unconfirmed.
        """
        begin = query("session.begin_snapshot" if snapshot else "session.begin")
        async with self._transaction(begin, _naming(tenant_id)) as transaction:
            yield transaction

    @asynccontextmanager
    async def single(self, tenant_id: UUID) -> AsyncIterator[Transaction]:
        """Open a transaction of one exchange: what is asked of it first is stored with the answer.

        For what only reads, or changes something in one statement, which may write an audit record.
        Raises StoreUnavailable when PostgreSQL does not answer; a change may be stored then.
        """
        async with self._connection() as connection:
            yield Transaction(connection, first=[_naming(tenant_id)], single=True)

    @asynccontextmanager
    async def no_tenant(self) -> AsyncIterator[Transaction]:
        """Open a transaction that sees no tenant's rows; only cross-tenant functions work."""
        async with self._transaction(query("session.begin")) as transaction:
            yield transaction

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Transaction]:
        """Open a transaction of no tenant whose reads all see the same moment; it cannot write."""
        async with self._transaction(query("session.begin_snapshot")) as transaction:
            yield transaction

    async def at_once(
        self, tenant_id: UUID | None, *statements: tuple[str, Mapping[str, Any]]
    ) -> list[list[DictRow]]:
        """Run statements as one transaction, in one round trip; return the rows of each.

        It needs no BEGIN and COMMIT: all statements before a Sync are stored together or not at all
        (PostgreSQL's manual, Message Flow, Pipelining). If a deferred check fails at the end, this
        raises StoreUnavailable and nothing is stored. Raises Unconfirmed if PostgreSQL goes away
        before it answers.
        """
        named = [] if tenant_id is None else [_naming(tenant_id)]
        async with self._connection() as connection:
            transaction = Transaction(connection, first=named)
            with unconfirmed():
                return await transaction.together(*statements)

    @asynccontextmanager
    async def statements(self) -> AsyncIterator[Transaction]:
        """Run each statement as a transaction of its own, which sees no tenant's rows."""
        async with self._connection() as connection:
            statements = Transaction(connection)
            yield statements
            await statements.flush()

    @asynccontextmanager
    async def _transaction(self, begin: str, *first: Statement) -> AsyncIterator[Transaction]:
        async with self._connection() as connection:
            transaction = Transaction(connection, begin, first)
            try:
                yield transaction
                await transaction.commit()
            except BaseException:
                if not connection.closed:
                    # Raise the first failure, even if this fails too: then the connection is
                    # closed.
                    with suppress(psycopg.Error):
                        await connection.rollback()
                raise

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            connection = await self._pool.getconn()
            try:
                yield connection
            finally:
                connection.close_unless_known()
                connection.answer_s = None
                # The pool replaces closed connections. A cancellation while it takes one back would
                # cost it a place for good.
                await asyncio.shield(self._pool.putconn(connection))
        except _NOT_NOW as error:
            if not _passes(error):
                raise
            raise StoreUnavailable(f"PostgreSQL: {type(error).__name__}; try again") from error


async def require_reachable(url: SecretStr) -> None:
    """Raise StoreUnavailable with the reason if this login cannot reach PostgreSQL.

    For commands: a pool keeps trying, and writes the reason only to its log.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(
            url.get_secret_value(), connect_timeout=CONNECT_TIMEOUT_S
        )
    except psycopg.Error as error:
        why = " ".join(str(error).split())
        raise StoreUnavailable(f"PostgreSQL cannot be reached: {why}") from error
    await connection.close()


def _naming(tenant_id: UUID) -> Statement:
    return query("session.name_tenant"), {"tenant_id": str(tenant_id)}


_NOT_NOW = (
    psycopg.OperationalError,  # statement time-outs, too
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,  # a standby, as in a failover
    # An operator's bounds on whole transactions: PostgreSQL hangs up, and nothing is stored.
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
    PoolTimeout,
)


def _passes(error: Exception) -> bool:
    """Return whether the same statement may succeed later, judging by PostgreSQL's own answer."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    return state is None or state[:2] in PASSING
