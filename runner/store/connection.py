"""A connection to PostgreSQL that is closed rather than left in an unknown state.

If nobody waited for the whole answer (a client hung up, a lease was lost, PostgreSQL was silent for
too long), the connection is closed at once and the pool replaces it. Nobody can tell what half an
exchange has done, and the cancelled caller cannot wait to find out.
"""

import asyncio
import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import psycopg
from psycopg import waiting
from psycopg.abc import RV, PQGen
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import DictRow

from runner.base.lost_peers import KEEPALIVE, LOST_MS

STATEMENT_TIMEOUT = timedelta(seconds=15)
"""How long PostgreSQL lets a statement run."""
GRACE_S = 2.0
ANSWER_TIMEOUT_S = STATEMENT_TIMEOUT.total_seconds() + GRACE_S
"""How long we wait for an answer: the network may lose PostgreSQL's."""
DEAD_PEER = {
    "keepalives_idle": KEEPALIVE[socket.TCP_KEEPIDLE],
    "keepalives_interval": KEEPALIVE[socket.TCP_KEEPINTVL],
    "keepalives_count": KEEPALIVE[socket.TCP_KEEPCNT],
    "tcp_user_timeout": LOST_MS,
}
"""The time after which the kernel gives up a TCP connection, in s and in ms (tcp(7))."""


class _Exchange(psycopg.AsyncPipeline):
    """A pipeline whose statements are all sent at its end, together.

    psycopg's own sends each statement as it comes, and each wakes PostgreSQL.
    """

    _ends = False

    def _communicate_gen(self) -> PQGen[None]:
        if self._ends:
            yield from super()._communicate_gen()

    def _exit_gen(self) -> PQGen[None]:
        self._ends = True
        try:
            yield from super()._exit_gen()
        except psycopg.errors.PipelineAborted as aborted:
            # The statement that failed says why. psycopg loses that if it is answered while others
            # are still being sent.
            failed = aborted.__context__
            raise failed if isinstance(failed, psycopg.Error) else aborted from None


class Connection(psycopg.AsyncConnection[DictRow]):
    """A connection that closes if an exchange is cut short."""

    answer_s: float | None = None
    """How long its current user waits for an answer; None means the default."""

    async def wait(
        self,
        gen: PQGen[RV],
        interval: float = 0.1,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's signature
    ) -> RV:
        """Drive one exchange with PostgreSQL. Raises OperationalError if it is silent for too long.

        When cancelled, psycopg itself asks PostgreSQL to cancel the statement and keeps waiting.
        That may take as long as the network likes, and may leave a pipeline that no rollback ends.
        """
        try:
            bound = timeout or self.answer_s or ANSWER_TIMEOUT_S
            return await waiting.wait_async(
                gen, self.pgconn.socket, interval=interval, timeout=bound
            )
        except (asyncio.CancelledError, GeneratorExit, psycopg.errors._WaitTimeout):  # noqa: SLF001
            self.pgconn.finish()
            with suppress(psycopg.Error):
                gen.close()  # It would try to end its pipeline, but it is too late for that.
            raise

    @asynccontextmanager
    async def exchange(self) -> AsyncIterator[None]:
        """Run the statements inside in one round trip; their rows are there after the context.

        Whatever is wrong with one of them is raised at the end of the context.
        """
        async with self.lock:
            self._pipeline = exchange = _Exchange(self)
        try:
            async with exchange:
                yield
        except BaseException:
            # PostgreSQL has passed over what stood behind the failure, and may not have prepared
            # what psycopg believes it has: each later use of the connection would fail.
            self._prepared.clear()
            raise
        finally:
            self._pipeline = None

    def close_unless_known(self) -> None:
        """Close it, unless no statement and no transaction is in progress."""
        # libpq's wrapper returns plain numbers, so compare with `==` and not with `is`.
        idle = self.pgconn.transaction_status == TransactionStatus.IDLE
        if not idle or self.pgconn.pipeline_status != PipelineStatus.OFF:
            self.pgconn.finish()


async def check(connection: Connection) -> None:
    """Raise if the server has hung up: between statements, it sends something only when it ends.

    This asks the host's kernel and not the server, which saves a round trip for each transaction.
    It never waits: if it were cancelled while waiting, the pool would lose the connection's place.
    """
    said = select.poll()
    said.register(connection.fileno(), select.POLLIN)
    while said.poll(0):
        # Raises OperationalError if the server ended. Anything else is a notice or a setting.
        connection.pgconn.consume_input()
        connection.pgconn.is_busy()
