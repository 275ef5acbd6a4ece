"""The only permitted job, checked before RQ sees it: nothing is imported by name.

RQ imports whatever function a job names, even with the JSON serializer, and makes callbacks by name
or by URL. Here a job from Redis is checked before RQ sees it, and its work is a function that the
worker passed in. So whoever can write to Redis still cannot run code on a worker.
"""

from collections.abc import Callable
from enum import Enum
from typing import NoReturn

import redis
from rq.exceptions import NoSuchJobError, StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer

from runner.queue.ring import RING, Ring, parse
from runner.queue.rings import discard

MAX_FIELDS = 40
MAX_FIELD_BYTES = 4096

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

# Check sizes inside Redis, before a byte of the job reaches the worker.
_UNLESS_TOO_LARGE = """
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[1]) then return false end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if redis.call('HSTRLEN', KEYS[1], field) > tonumber(ARGV[2]) then return false end
end
return redis.call('HGETALL', KEYS[1])
"""


class Then(Enum):
    """The next step after a job was refused."""

    GO_ON = "go on"
    DISCARD = "throw away what waits behind it"
    STOP = "stop"


class RefusedJob(NoSuchJobError):
    """The job is not ours. RQ treats it as if it were gone, and takes the next one."""


def ring(tenant_id: str, execution_id: str) -> NoReturn:
    """Names the only permitted job. This never runs: the worker's job class does the work."""
    raise RuntimeError(
        f"{RING} is performed by the worker's job class: {tenant_id}, {execution_id}"
    )


class RingJob(Job):
    """A job as the producer makes it; a worker's subclass checks and performs it."""

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
        """Check what Redis holds, and keep only the ring and harmless fields."""
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
                    # Only after discarding: an earlier look would miss executions whose rings are
                    # thrown away.
                    type(self).on_discarded()
                case Then.GO_ON:
                    pass
        raise RefusedJob(f"job {job_id} refused: {why}")


def bound_job_class(
    on_ring: Callable[[Ring], None],
    on_refused: Callable[[str, str], Then],
    on_discarded: Callable[[], None] = lambda: None,
) -> type[RingJob]:
    """Return a job class that performs rings and reports refusals, with the job's id and why."""
    calls: dict[str, Callable[..., object]] = {
        "on_ring": on_ring,
        "on_refused": on_refused,
        "on_discarded": on_discarded,
    }
    return type("BoundRingJob", (RingJob,), {k: staticmethod(v) for k, v in calls.items()})
