"""A connection to PostgreSQL that is closed rather than left in an unknown state.

One whose answer was not awaited to its end (a client hung up, a lease was lost, PostgreSQL was
silent for too long) is closed at once, and the pool replaces it: whoever was cancelled cannot
wait, and nobody can tell what half an exchange has done.
"""

import asyncio
import select
from contextlib import suppress
from datetime import timedelta

import psycopg
from psycopg import waiting
from psycopg.abc import RV, PQGen
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import DictRow

STATEMENT_TIMEOUT = timedelta(seconds=15)
"""PostgreSQL's own bound on a statement."""
GRACE_S = 2.0
ANSWER_TIMEOUT_S = STATEMENT_TIMEOUT.total_seconds() + GRACE_S
"""Ours, for a network that loses PostgreSQL's answer: nobody would tell us of that."""
DEAD_PEER = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""When the kernel gives a TCP connection up, in seconds and milliseconds (tcp(7))."""


class Connection(psycopg.AsyncConnection[DictRow]):
    """A connection that is closed by an exchange that is cut short."""

    answer_s: float | None = None
    """How long its present user waits for an answer; None means as long as everybody."""

    async def wait(
        self,
        gen: PQGen[RV],
        interval: float = 0.1,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's signature
    ) -> RV:
        """Drive one exchange with PostgreSQL; raises OperationalError if that is silent too long.

        When cancelled, psycopg itself has PostgreSQL cancel the statement and waits on. That can
        leave a pipeline half ended, which no rollback ends, and lasts as long as the network likes.
        """
        try:
            bound = timeout or self.answer_s or ANSWER_TIMEOUT_S
            return await waiting.wait_async(
                gen, self.pgconn.socket, interval=interval, timeout=bound
            )
        except (asyncio.CancelledError, GeneratorExit, psycopg.errors._WaitTimeout):  # noqa: SLF001
            self.pgconn.finish()
            with suppress(psycopg.Error):
                gen.close()  # It would like to end its pipeline, for which it is too late.
            raise

    def close_unless_known(self) -> None:
        """Close it, unless nothing is under way on it, not even a transaction."""
        # libpq's wrapper returns plain numbers, so not `is`.
        idle = self.pgconn.transaction_status == TransactionStatus.IDLE
        if not idle or self.pgconn.pipeline_status != PipelineStatus.OFF:
            self.pgconn.finish()


async def check(connection: Connection) -> None:
    """Raise if the server has hung up: between statements only its end has something to say.

    Asked of this host's kernel alone, not of the server: a round trip less for each transaction.
    It never waits, as a cancellation then would lose the pool the connection's place.
    """
    said = select.poll()
    said.register(connection.fileno(), select.POLLIN)
    while said.poll(0):
        # Raises OperationalError at the end. What else comes unasked is a notice or a setting.
        connection.pgconn.consume_input()
        connection.pgconn.is_busy()
