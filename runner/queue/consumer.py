"""The consumer's end of the queue: RQ's worker, without what trusts Redis or owns a process."""

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
"""How long a consumer blocks for a ring before it looks whether it should stop."""


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
        """How long one blocking look takes, in seconds."""
        return IDLE_S

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Never: RQ's maintenance trusts what Redis holds. Our reconciler rings again instead."""
        return False

    def _install_signal_handlers(self) -> None:
        """Signals belong to the process, not to a consumer's thread."""

    def subscribe(self) -> None:
        """RQ's command channel would let a writer of Redis stop this worker: not opened."""

    def unsubscribe(self) -> None:
        """Nothing was opened."""

    def check_for_suspension(self, burst: bool) -> None:  # noqa: FBT001 - RQ's signature
        """Look at nothing: a writer of Redis could suspend every worker so."""

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Keep what RQ would tell Redis at every step: nobody asks there."""
        del pipeline
        self._state = state

    def execute_job(self, job: Job, _queue: Queue) -> None:
        """Answer a ring and forget it, in one round trip: a ring has no result to keep.

        RQ's own way takes ten, and records a ring's end, which is nobody's business.
        """
        try:
            job.perform()
        finally:
            self.connection.delete(job.key)

    def procline(self, message: str) -> None:
        """Leave the process title alone: it is not a consumer's."""

    def register_birth(self) -> None:
        """Register nowhere, as nobody asks there, and clear away what earlier releases left.

        Names of consumers that died, and rings that were taken and never answered.
        """
        names = f"{self.redis_workers_keys}:{QUEUE}"
        with self.connection.pipeline() as leftovers:
            leftovers.sdiffstore(self.redis_workers_keys, [self.redis_workers_keys, names])
            leftovers.unlink(names, f"{RingList.key_of()}:intermediate")
            leftovers.execute()

    def register_death(self) -> None:
        """Nothing was registered: a stop does not wait for Redis."""

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Look whether to stop: the one place that each idle round passes through.

        RQ leaves its idle loop by a signal, which a thread does not get. A ring taken in the very
        moment of stopping is lost, and rung again by the reconciler.
        """
        del timeout, pipeline
        if self._stop_requested:
            raise StopRequested

    def stop(self) -> None:
        """Ask the work loop to end after the job at hand; callable from any thread."""
        self._stop_requested = True
