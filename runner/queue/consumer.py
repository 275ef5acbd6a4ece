"""The consumer's end of the queue: RQ's worker, but it trusts no Redis and owns no process."""

import redis
from redis.client import Pipeline
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty

from runner.queue.connections import RETRY_S
from runner.queue.job import RingJob
from runner.queue.rings import QUEUE, RingList

IDLE_S = 1
"""How long a consumer waits for a ring before it checks whether it should stop."""


class Consumer(SimpleWorker):
    """An RQ worker for one thread: no fork, no signal handlers, no commands from Redis."""

    death_penalty_class = TimerDeathPenalty
    queue_class = RingList
    max_connection_wait_time = RETRY_S

    def __init__(self, connection: "redis.Redis", name: str, job_class: type[RingJob]) -> None:
        super().__init__(
            [
                RingList(
                    QUEUE, connection=connection, job_class=job_class, serializer=JSONSerializer
                )
            ],
            name=name,
            connection=connection,
            job_class=job_class,
            serializer=JSONSerializer,
            log_job_description=False,
        )

    @property
    def dequeue_timeout(self) -> int:
        """How long one wait for a ring takes, in seconds."""
        return IDLE_S

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Never: RQ's maintenance trusts Redis. Our reconciler repeats lost rings instead."""
        return False

    def _install_signal_handlers(self) -> None:
        """Signals belong to the process, not to a consumer's thread."""

    def subscribe(self) -> None:
        """Do not open RQ's command channel: whoever can write to Redis could stop us by it."""

    def unsubscribe(self) -> None:
        """Nothing was opened."""

    def check_for_suspension(self, burst: bool) -> None:  # noqa: FBT001 - RQ's signature
        """Skip this check, by which anybody who can write to Redis could suspend every worker."""

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Keep the state here: RQ would write it to Redis at every step, where nobody reads it."""
        del pipeline
        self._state = state

    def execute_job(self, job: Job, _queue: Queue) -> None:
        """Answer a ring and forget it, in one round trip: a ring has no result to keep.

        RQ's own way takes ten round trips, and records each ring's end, which nobody reads.
        """
        try:
            job.perform()
        finally:
            self.connection.delete(job.key)

    def procline(self, message: str) -> None:
        """Leave the process title alone: it does not belong to a consumer."""

    def register_birth(self) -> None:
        """Do not register, as nobody reads that, and remove what earlier releases left in Redis.

        These are names of consumers that died, and rings that were taken and never answered.
        """
        names = f"{self.redis_workers_keys}:{QUEUE}"
        with self.connection.pipeline() as leftovers:
            leftovers.sdiffstore(self.redis_workers_keys, [self.redis_workers_keys, names])
            leftovers.unlink(names, f"{RingList.key_of()}:intermediate")
            leftovers.execute()

    def register_death(self) -> None:
        """Nothing was registered, so a stop does not wait for Redis."""

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Check whether to stop: each idle round calls this method, and no other.

        RQ leaves its idle loop by a signal, which a thread does not get. If a ring is taken in the
        very moment of stopping, it is lost, and the reconciler rings again.
        """
        del timeout, pipeline
        if self._stop_requested:
            raise StopRequested

    def stop(self) -> None:
        """Ask the work loop to end after the current job; any thread may call this."""
        self._stop_requested = True
