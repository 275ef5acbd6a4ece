"""Connections and transactions. Every transaction belongs to one tenant, or to none.

The tenant is set with `set_config(…, is_local => true)`: it ends with the transaction, so a
pooled connection carries nothing over, also after an error or a cancellation.
"""

import select
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache
from importlib import resources
from typing import Any, Self
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from pydantic import SecretStr

from runner.errors import StoreUnavailable

STATEMENT_TIMEOUT = timedelta(seconds=15)
CONNECT_TIMEOUT_S = 3
COMMITTED = "COMMIT"
_MARK = "-- name: "


@cache
def _file(resource: str) -> Mapping[str, str]:
    text = resources.files("runner.store").joinpath("queries", f"{resource}.sql").read_text("utf-8")
    blocks = text.split(_MARK)[1:]
    return {name.strip(): body for name, _, body in (block.partition("\n") for block in blocks)}


def query(name: str) -> str:
    """Return the SQL named `resource.query` from `queries/resource.sql`."""
    resource, _, key = name.partition(".")
    return _file(resource)[key]


class Transaction:
    """One open transaction: named queries in, plain rows out."""

    def __init__(self, connection: psycopg.AsyncConnection[DictRow]) -> None:
        self._connection = connection

    async def one(self, name: str, /, **values: Any) -> DictRow | None:
        """Return the first row, or None."""
        cursor = await self._connection.execute(query(name).encode(), values)
        return await cursor.fetchone()

    async def all(self, name: str, /, **values: Any) -> list[DictRow]:
        """Return every row."""
        cursor = await self._connection.execute(query(name).encode(), values)
        return await cursor.fetchall()

    async def run(self, name: str, /, **values: Any) -> int:
        """Return how many rows the statement touched."""
        cursor = await self._connection.execute(query(name).encode(), values)
        return cursor.rowcount

    async def together(self, *statements: tuple[str, Mapping[str, Any]]) -> list[list[DictRow]]:
        """Return the rows of several statements, none of which needs another's: one round trip."""
        async with self._connection.pipeline():
            cursors = [
                await self._connection.execute(query(name).encode(), values)
                for name, values in statements
            ]
            return [await cursor.fetchall() for cursor in cursors]

    async def each(self, name: str, /, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run the statement once for each of `rows`, in one round trip."""
        if rows:
            async with self._connection.cursor() as cursor:
                await cursor.executemany(query(name).encode(), rows)

    async def clear(self, table: str) -> int:
        """Delete every row of the table that this transaction sees; return how many."""
        statement = sql.SQL("DELETE FROM {}").format(sql.Identifier(table))
        return (await self._connection.execute(statement)).rowcount


class Database:
    """A pool of connections of one login role."""

    def __init__(self, url: SecretStr, *, max_size: int = 10) -> None:
        self._pool = AsyncConnectionPool[psycopg.AsyncConnection[DictRow]](
            url.get_secret_value(),
            min_size=1,
            max_size=max_size,
            open=False,
            timeout=CONNECT_TIMEOUT_S,
            reconnect_timeout=10.0,
            check=_check,
            kwargs={
                "row_factory": dict_row,
                "autocommit": True,
                "connect_timeout": CONNECT_TIMEOUT_S,
                "options": f"-c statement_timeout={STATEMENT_TIMEOUT // timedelta(milliseconds=1)}",
            },
        )

    async def __aenter__(self) -> Self:
        # Not waited for: a process that starts before PostgreSQL becomes ready with it.
        await self._pool.open(wait=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def tenant(
        self, tenant_id: UUID, *, snapshot: bool = False
    ) -> AsyncIterator[Transaction]:
        """Open a transaction that sees and writes the rows of `tenant_id` alone.

        With `snapshot` all its reads see one moment, and it cannot write. Raises
        StoreUnavailable when PostgreSQL does not answer; nothing is then stored.
        """
        # In one round trip: by the simple protocol, which takes no parameters.
        begin = query("session.begin_snapshot" if snapshot else "session.begin")
        composed = sql.SQL(begin).format(tenant_id=sql.Literal(str(tenant_id)))
        async with self._transaction(composed) as transaction:
            yield transaction

    @asynccontextmanager
    async def no_tenant(self) -> AsyncIterator[Transaction]:
        """Open a transaction that sees no tenant's rows: only the cross-tenant functions work."""
        async with self._transaction(query("session.begin_without_tenant").encode()) as transaction:
            yield transaction

    @asynccontextmanager
    async def statements(self) -> AsyncIterator[Transaction]:
        """Let each statement be a transaction of its own, which sees no tenant's rows."""
        async with self._connection() as connection:
            yield Transaction(connection)

    @asynccontextmanager
    async def _transaction(self, begin: sql.Composed | bytes) -> AsyncIterator[Transaction]:
        async with self._connection() as connection:
            await connection.execute(begin)
            try:
                yield Transaction(connection)
            except BaseException:
                if not connection.closed:
                    await connection.rollback()
                raise
            ended = await connection.execute(query("session.commit").encode())
            if ended.statusmessage != COMMITTED:
                raise RuntimeError("a statement of this transaction had failed: nothing is stored")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[DictRow]]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
            # Statement time-outs are OperationalErrors: "not now", too.
            raise StoreUnavailable(f"PostgreSQL: {type(error).__name__}; try again") from error


async def _check(connection: psycopg.AsyncConnection[DictRow]) -> None:
    """Raise if the server has hung up: between statements only its end has something to say.

    Asked of this host's kernel alone, not of the server: a round trip less for each transaction.
    """
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        await AsyncConnectionPool.check_connection(connection)
