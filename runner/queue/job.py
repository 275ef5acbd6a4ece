"""The only file that touches RQ: one queue, one permitted job, nothing imported by name.

RQ imports whatever function a job names, also with the JSON serializer, and calls back by name or
by URL. Here a job read from Redis is checked before RQ sees it, and its work is a function that
the worker passed in: write access to Redis is not code execution on a worker.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn
from uuid import UUID

import redis
from redis.client import Pipeline
from rq import Queue, SimpleWorker
from rq.exceptions import NoSuchJobError, StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty

from runner.queue.connections import RETRY_S

QUEUE = "executions"
RING = "runner.queue.job.ring"
MAX_FIELDS = 40
MAX_FIELD_BYTES = 4096
MAX_PAYLOAD_BYTES = 512
IDLE_S = 2
"""How long a consumer blocks for a ring before it looks whether it should stop."""
UNUSED_RING_TTL_S = 3600
MAX_WAITING = 1000
"""Rings that wait, the newest: each makes its consumer look until nothing is left to claim."""
DISCARDED = 1000
"""Jobs that are thrown away at once."""

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


_DISCARD = """
local ids = redis.call('LPOP', KEYS[1], ARGV[1]) or {}
for _, id in ipairs(ids) do redis.call('UNLINK', ARGV[2] .. id) end
return #ids
"""


@dataclass(frozen=True, slots=True)
class Ring:
    """What a job may say: look, this execution of this tenant waits."""

    tenant_id: UUID
    execution_id: UUID


class Then(Enum):
    """What to do after a job was refused."""

    GO_ON = "go on"
    DISCARD = "throw away what waits behind it"
    STOP = "stop"


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
    on_refused: Callable[[str, str], Then] | None = None
    on_discarded: Callable[[], None]

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
        if self.on_refused is not None:
            match type(self).on_refused(job_id, why):  # type: ignore[misc]
                case Then.STOP:
                    raise StopRequested
                case Then.DISCARD:
                    discard(self.connection)
                    # Only then: a look before would miss what is thrown away after it.
                    type(self).on_discarded()
                case Then.GO_ON:
                    pass
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


def discard(connection: "redis.Redis") -> int:
    """Throw away the first of what waits, unread; return how many. Lost rings are rung again."""
    found = connection.eval(
        _DISCARD, 1, RingList.key_of(), DISCARDED, Job.redis_job_namespace_prefix
    )
    return int(found)


def bound_job_class(
    on_ring: Callable[[Ring], None],
    on_refused: Callable[[str, str], Then],
    on_discarded: Callable[[], None] = lambda: None,
) -> type[RingJob]:
    """Return a job class that performs rings, reports `(job id, why)` refusals and what follows."""
    calls: dict[str, Callable[..., object]] = {
        "on_ring": on_ring,
        "on_refused": on_refused,
        "on_discarded": on_discarded,
    }
    return type("BoundRingJob", (RingJob,), {k: staticmethod(v) for k, v in calls.items()})


class RingList(Queue):
    """RQ's queue, of which a ring is taken for good: one that its consumer loses is rung again.

    RQ moves what it takes to a second list, from which only its maintenance would take it.
    """

    @classmethod
    def key_of(cls) -> str:
        """Return the key of the one queue."""
        return f"{cls.redis_queue_namespace_prefix}{QUEUE}"

    @classmethod
    def lmove(
        cls, connection: "redis.Redis", queue_key: str, timeout: int | None
    ) -> tuple[str, bytes] | None:
        """Take the next one."""
        found: tuple[str, bytes] | None = cls.lpop([queue_key], timeout, connection)
        return found


class RingQueue:
    """The producer's end."""

    def __init__(self, connection: "redis.Redis") -> None:
        self._connection = connection
        self._queue = RingList(
            QUEUE, connection=connection, job_class=RingJob, serializer=JSONSerializer
        )

    def put(self, found: Ring) -> None:
        """Ring once."""
        with self._connection.pipeline() as pipeline:
            self._queue.enqueue_call(
                func=RING,
                args=(str(found.tenant_id), str(found.execution_id)),
                timeout=-1,
                result_ttl=0,
                failure_ttl=60,
                ttl=UNUSED_RING_TTL_S,
                description="ring",
                pipeline=pipeline,
            )
            pipeline.ltrim(self._queue.key, -MAX_WAITING, -1)
            pipeline.execute()

    def waiting(self) -> int:
        """Return how many rings nobody has answered."""
        return int(self._queue.count)


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
