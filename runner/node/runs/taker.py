"""RQ's consumer: a thread takes a ring when a slot is free, and hands it to the event loop."""

import asyncio
import threading
import time
from collections.abc import Mapping

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


class RingTaker:
    """Starts and stops the thread. Each ring takes a slot until nothing is left to claim.

    While all slots are taken, no ring is: another node may answer it.
    """

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
        self._free = threading.Semaphore(slots)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._consumer: Consumer | None = None
        self._thread = threading.Thread(target=self._consume, name="ring-taker")
        self._looking: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("runner.worker")

    def start(self) -> None:
        """Start the thread; call it from the loop that runs the executions."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def ended(self) -> Mapping[str, str]:
        """Return the thread if it has ended although nobody told it to."""
        return {} if self._thread.is_alive() else {self._thread.name: "it has ended"}

    def request_stop(self) -> None:
        """Take no more rings; what runs goes on to its end."""
        self._stopping.set()
        if (consumer := self._consumer) is not None:
            consumer.stop()

    async def join(self) -> None:
        """Wait for the thread, and for all that was claimed, to end."""
        await asyncio.to_thread(self._thread.join)
        while self._looking:
            await asyncio.wait(set(self._looking))

    def _consume(self) -> None:
        job_class = bound_job_class(self._on_ring, self._on_refused, self._on_discarded)
        self._await_slot()
        while not self._stopping.is_set():
            connection = connect(self._redis_url, blocks_s=IDLE_S)
            try:
                name = f"{self._instance}-{time.monotonic_ns()}"
                self._consumer = Consumer(connection, name, job_class)
                # It may have been told to stop before there was a consumer to tell.
                if not self._stopping.is_set():
                    self._consumer.work(logging_level="WARNING")
            except redis.RedisError as error:
                self._log.warning("consumer_lost_redis", error=repr(error))
            except Exception:  # noqa: BLE001 - log it and go on: nobody else takes rings
                self._log.exception("consumer_failed")
            finally:
                connection.close()
            self._stopping.wait(RETRY_S)

    def _await_slot(self) -> None:
        """Take a slot for the next ring. When told to stop, return without one."""
        while not self._free.acquire(timeout=IDLE_S) and not self._stopping.is_set():
            pass

    def _on_ring(self, ring: Ring) -> None:
        self._log.debug("ring", tenant=str(ring.tenant_id), execution=str(ring.execution_id))
        self._hand_over(discarded=False)

    def _on_refused(self, job_id: str, why: str) -> Then:
        flood = self._refusals.count(job_id, why)
        if self._stopping.is_set():
            return Then.STOP
        return Then.DISCARD if flood else Then.GO_ON

    def _on_discarded(self) -> None:
        """Look for work, because useful rings may have been thrown away."""
        if self._refusals.may_look():
            self._hand_over(discarded=True)

    def _hand_over(self, *, discarded: bool) -> None:
        """Let the loop look for work, in the slot that was taken for this ring."""
        if self._loop is None:
            raise RuntimeError("start() was not called")
        self._loop.call_soon_threadsafe(self._begin, discarded)
        self._await_slot()

    def _begin(self, discarded: bool) -> None:  # noqa: FBT001 - the loop passes it by position
        task = asyncio.create_task(self._look(discarded=discarded))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look(self, *, discarded: bool) -> None:
        """Run waiting executions until none is left to claim.

        After rings were `discarded`, remember when nothing was left: the next look may wait.
        """
        try:
            while not self._stopping.is_set() and await self._claimer.run_next():
                pass
            if discarded:
                self._refusals.found_nothing()
        except NotReady as error:
            # The reconciler rings again once PostgreSQL is back.
            self._log.warning("claim_failed", error=error.detail)
        except Exception:  # noqa: BLE001 - logged; the reconciler rings again
            self._log.exception("look_failed")
            await asyncio.sleep(RETRY_S)
        finally:
            self._free.release()
