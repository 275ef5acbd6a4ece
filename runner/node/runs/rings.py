"""RQ's consumers: one thread for each slot waits for rings and passes them to the event loop."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Mapping
from typing import TypeVar

import redis
import structlog
from pydantic import SecretStr

from runner.node.runs.claimer import Claimer
from runner.node.runs.refusals import Refusals
from runner.queue.connections import RETRY_S, connect
from runner.queue.consumer import IDLE_S, Consumer
from runner.queue.job import Then, bound_job_class
from runner.queue.ring import Ring
from runner.words.errors import NotReady

T = TypeVar("T")


class Consumers:
    """Starts and stops the threads. A ring occupies its thread until nothing is left to claim."""

    def __init__(
        self,
        *,
        redis_url: SecretStr,
        claimer: Claimer,
        refusals: Refusals,
        slots: int,
        instance: str,
    ) -> None:
        self._redis_url = redis_url
        self._claimer = claimer
        self._refusals = refusals
        self._instance = instance
        self._slots = slots
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._consumers: set[Consumer] = set()
        self._threads: list[threading.Thread] = []
        self._log = structlog.get_logger("runner.worker")

    def start(self) -> None:
        """Start the threads; call it from the loop that runs the executions."""
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._consume, args=(number,), name=f"consumer-{number}")
            for number in range(self._slots)
        ]
        for thread in self._threads:
            thread.start()

    def ended(self) -> Mapping[str, str]:
        """Return the threads that have ended although nobody told them to."""
        return {thread.name: "it has ended" for thread in self._threads if not thread.is_alive()}

    def request_stop(self) -> None:
        """Take no more rings; each thread ends after its current execution."""
        self._stopping.set()
        for consumer in tuple(self._consumers):
            consumer.stop()

    async def join(self) -> None:
        """Wait for the threads to end."""
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in self._threads))

    def _consume(self, number: int) -> None:
        job_class = bound_job_class(self._on_ring, self._on_refused, self._on_discarded)
        while not self._stopping.is_set():
            connection = connect(self._redis_url, blocks_s=IDLE_S)
            try:
                consumer = Consumer(
                    connection, f"{self._instance}-{number}-{time.monotonic_ns()}", job_class
                )
                self._consumers.add(consumer)
                try:
                    if not self._stopping.is_set():
                        consumer.work(logging_level="WARNING")
                finally:
                    self._consumers.discard(consumer)
            except redis.RedisError as error:
                self._log.warning("consumer_lost_redis", consumer=number, error=repr(error))
            except Exception:  # noqa: BLE001 - log it and go on: nobody would notice a missing slot
                self._log.exception("consumer_failed", consumer=number)
            finally:
                connection.close()
            self._stopping.wait(RETRY_S)

    def _on_ring(self, ring: Ring) -> None:
        self._log.debug("ring", tenant=str(ring.tenant_id), execution=str(ring.execution_id))
        self._look()

    def _look(self) -> None:
        """Run waiting executions until none is left to claim."""
        while not self._stopping.is_set():
            try:
                if not self._on_loop(self._claimer.run_next()):
                    return
            except NotReady as error:
                # The reconciler rings again once PostgreSQL is back.
                self._log.warning("claim_failed", error=error.detail)
                return

    def _on_refused(self, job_id: str, why: str) -> Then:
        flood = self._refusals.count(job_id, why)
        if self._stopping.is_set():
            return Then.STOP
        return Then.DISCARD if flood else Then.GO_ON

    def _on_discarded(self) -> None:
        """Look for work, because useful rings may have been thrown away."""
        if self._refusals.may_look():
            self._look()
            self._refusals.found_nothing()

    def _on_loop(self, work: Coroutine[None, None, T]) -> T:
        if self._loop is None:
            raise RuntimeError("start() was not called")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
