"""RQ's consumers: one thread for each slot, waiting for rings and handing over to the loop."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import TypeVar

import redis
import structlog
from pydantic import SecretStr

from runner.audit import events as audit
from runner.errors import NotReady
from runner.queue.job import Consumer, Ring, bound_job_class
from runner.store.db import Database
from runner.worker.execute import Executor

RESTART_AFTER_S = 1.0

T = TypeVar("T")


class Consumers:
    """Starts and stops the threads. A ring occupies its thread until nothing is left to claim."""

    def __init__(
        self,
        *,
        redis_url: SecretStr,
        executor: Executor,
        database: Database,
        slots: int,
        instance: str,
    ) -> None:
        self._redis_url = redis_url
        self._executor = executor
        self._database = database
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

    def request_stop(self) -> None:
        """Take no more rings; the threads end when the execution at hand does."""
        self._stopping.set()
        for consumer in tuple(self._consumers):
            consumer.stop()

    async def join(self) -> None:
        """Wait for the threads to end."""
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in self._threads))

    def _consume(self, number: int) -> None:
        job_class = bound_job_class(self._on_ring, self._on_refused)
        while not self._stopping.is_set():
            connection = redis.Redis.from_url(self._redis_url.get_secret_value())
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
            finally:
                connection.close()
            self._stopping.wait(RESTART_AFTER_S)

    def _on_ring(self, ring: Ring) -> None:
        self._log.debug("ring", tenant=str(ring.tenant_id), execution=str(ring.execution_id))
        while not self._stopping.is_set():
            try:
                if not self._on_loop(self._executor.run_next()):
                    return
            except NotReady as error:
                # The reconciler rings again once PostgreSQL is back.
                self._log.warning("claim_failed", error=error.detail)
                return

    def _on_refused(self, job_id: str, why: str) -> None:
        self._log.warning("job_refused", job=job_id, why=why)
        event = audit.AuditEvent(
            actor="system:queue",
            action=audit.Action.QUEUE_JOB,
            outcome=audit.Outcome.DENIED,
            resource_type="queue_job",
            resource_id=printable(job_id),
            metadata={"why": printable(why)},
        )
        try:
            self._on_loop(audit.append_platform(self._database, event))
        except NotReady as error:
            self._log.warning("refusal_not_audited", job=job_id, error=error.detail)

    def _on_loop(self, work: Coroutine[None, None, T]) -> T:
        if self._loop is None:
            raise RuntimeError("start() was not called")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def printable(text: str) -> str:
    """Return text of unknown origin with everything but printable characters escaped."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
