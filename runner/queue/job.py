"""The only file that touches RQ: one queue, one permitted job, nothing imported by name.

RQ imports whatever function a job names, also with the JSON serializer, and calls back by name or
by URL. Here a job read from Redis is checked before RQ sees it, and its work is a function that
the worker passed in: write access to Redis is not code execution on a worker.
"""

import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn
from uuid import UUID

import redis
from redis.client import Pipeline
from rq import Queue, SimpleWorker
from rq.exceptions import NoSuchJobError, StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty

QUEUE = "executions"
"""One queue only: a worker that listens to several loses jobs when it dies (plain BLPOP)."""
RING = "runner.queue.job.ring"
MAX_FIELDS = 40
MAX_FIELD_BYTES = 4096
MAX_PAYLOAD_BYTES = 512
IDLE_S = 2
"""How long a consumer blocks for a ring before it looks whether it should stop."""
UNUSED_RING_TTL_S = 3600
BEAT_S = 30.0
"""How often a consumer tells Redis that it lives: RQ forgets it after 420 seconds."""

_FORBIDDEN = (
    "success_callback_name",
    "failure_callback_name",
    "stopped_callback_name",
    "webhooks",
    "dependency_ids",
    "dependency_id",
    "group_id",
    "retries_left",
    "repeats_left",
    "rate_limit_key",
)
_KEPT = ("created_at", "enqueued_at", "origin", "status", "description")

# Sizes are looked at inside Redis, before a byte of the job reaches the worker.
_UNLESS_TOO_LARGE = """
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[1]) then return false end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if redis.call('HSTRLEN', KEYS[1], field) > tonumber(ARGV[2]) then return false end
end
return redis.call('HGETALL', KEYS[1])
"""


@dataclass(frozen=True, slots=True)
class Ring:
    """What a job may say: look, this execution of this tenant waits."""

    tenant_id: UUID
    execution_id: UUID


class RefusedJob(NoSuchJobError):
    """A job that is not ours. RQ takes it for one that is gone, and goes on to the next."""


def ring(tenant_id: str, execution_id: str) -> NoReturn:
    """Name the one permitted job. The worker's job class does the work; this never runs."""
    raise RuntimeError(
        f"{RING} is performed by the worker's job class: {tenant_id}, {execution_id}"
    )


class RingJob(Job):
    """A job as the producer makes it, and as a worker's subclass checks and performs it."""

    on_ring: Callable[[Ring], None] | None = None
    on_refused: Callable[[str, str], None] | None = None

    def refresh(self) -> None:
        """Load from Redis unless it is too large to be ours."""
        try:
            found = self.connection.eval(
                _UNLESS_TOO_LARGE, 1, self.key, MAX_FIELDS, MAX_FIELD_BYTES
            )
        except redis.ResponseError as error:
            self._refuse(f"not a job: {error}"[:200])
        if found is None:
            self._refuse("oversized job")
        if not found:
            raise NoSuchJobError(f"job {self.id[:64]} is gone")
        self.restore(dict(zip(found[::2], found[1::2], strict=True)))

    def restore(self, raw_data: dict[bytes, bytes]) -> None:
        """Check what Redis holds and take over nothing but the ring and harmless fields."""
        fields = {key.decode("utf-8", "replace"): value for key, value in raw_data.items()}
        for name in _FORBIDDEN:
            if fields.get(name) not in (None, b"", b"[]", b"0"):
                self._refuse(f"field {name} is not permitted")
        try:
            found = parse(fields.get("data", b""))
        except ValueError as error:
            self._refuse(str(error))
        kept: dict[bytes, bytes] = {name.encode(): fields[name] for name in _KEPT if name in fields}
        payload = JSONSerializer.dumps(
            [RING, None, [str(found.tenant_id), str(found.execution_id)], {}]
        )
        try:
            super().restore({**kept, b"data": payload, b"timeout": b"-1", b"result_ttl": b"0"})
        except ValueError as error:
            self._refuse(f"malformed field: {type(error).__name__}")
        self._ring = found

    def perform(self) -> None:
        """Hand the ring to the worker's function; no name from Redis is ever resolved."""
        if self.on_ring is None:
            raise RuntimeError("this process does not perform jobs")
        type(self).on_ring(self._ring)  # type: ignore[misc]

    def _refuse(self, why: str) -> NoReturn:
        job_id = self.id[:64]
        self.connection.delete(self.key)
        self.connection.lrem(
            f"{Queue.redis_queue_namespace_prefix}{QUEUE}:intermediate", 0, self.id
        )
        if self.on_refused is not None:
            type(self).on_refused(job_id, why)  # type: ignore[misc]
        raise RefusedJob(f"job {job_id} refused: {why}")


def parse(data: bytes) -> Ring:
    """Return the ring in a job's payload. Raises ValueError saying why it is none of ours."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, MAX_PAYLOAD_BYTES)
        rest = inflater.unconsumed_tail
    except zlib.error:
        # RQ takes a payload that is not compressed as it is.
        text, rest = data, b""
    if rest or len(text) > MAX_PAYLOAD_BYTES:
        raise ValueError("oversized payload")
    try:
        call: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("payload is not JSON") from None
    match call:
        case [str(name), None, [str(tenant), str(execution)], dict(named)] if not named:
            if name != RING:
                raise ValueError(f"function {name[:100]!r} is not permitted")
        case [str(name), *_] if name != RING:
            raise ValueError(f"function {name[:100]!r} is not permitted")
        case _:
            raise ValueError("payload is not a ring")
    try:
        return Ring(tenant_id=UUID(tenant), execution_id=UUID(execution))
    except ValueError:
        raise ValueError("payload holds no ids") from None


def bound_job_class(
    on_ring: Callable[[Ring], None], on_refused: Callable[[str, str], None]
) -> type[RingJob]:
    """Return a job class that performs rings by `on_ring` and reports `(job id, why)` refusals."""
    return type(
        "BoundRingJob",
        (RingJob,),
        {"on_ring": staticmethod(on_ring), "on_refused": staticmethod(on_refused)},
    )


class RingQueue:
    """The producer's end."""

    def __init__(self, connection: "redis.Redis") -> None:
        self._queue = Queue(
            QUEUE, connection=connection, job_class=RingJob, serializer=JSONSerializer
        )

    def put(self, found: Ring) -> None:
        """Ring once."""
        self._queue.enqueue_call(
            func=RING,
            args=(str(found.tenant_id), str(found.execution_id)),
            timeout=-1,
            result_ttl=0,
            failure_ttl=60,
            ttl=UNUSED_RING_TTL_S,
            description="ring",
        )

    def waiting(self) -> int:
        """Return how many rings nobody has answered."""
        return int(self._queue.count)


class Consumer(SimpleWorker):
    """An RQ worker for one thread: no fork, no signal handlers, no commands from Redis."""

    death_penalty_class = TimerDeathPenalty

    def __init__(self, connection: "redis.Redis", name: str, job_class: type[RingJob]) -> None:
        super().__init__(
            [Queue(QUEUE, connection=connection, job_class=job_class, serializer=JSONSerializer)],
            name=name,
            connection=connection,
            job_class=job_class,
            serializer=JSONSerializer,
            log_job_description=False,
        )
        self._beaten = -BEAT_S

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

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Answer a ring and forget it, in one round trip: a ring has no result to keep.

        RQ's own way takes ten, and writes what a ring's end is nobody's business.
        """
        try:
            job.perform()
        finally:
            with self.connection.pipeline(transaction=False) as forgetting:
                forgetting.lrem(queue.intermediate_queue_key, 1, job.id)
                forgetting.delete(job.key)
                forgetting.execute()

    def procline(self, message: str) -> None:
        """Leave the process title alone: it is not a consumer's."""

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Tell Redis that this consumer lives; the one place each idle round passes through.

        RQ leaves its idle loop by a signal, which a thread does not get. A ring taken in the very
        moment of stopping is lost, and rung again by the reconciler.
        """
        if self._stop_requested and pipeline is None:
            raise StopRequested
        if time.monotonic() > self._beaten + BEAT_S:
            self._beaten = time.monotonic()
            super().heartbeat(timeout, pipeline)

    def stop(self) -> None:
        """Ask the work loop to end after the job at hand; callable from any thread."""
        self._stop_requested = True
