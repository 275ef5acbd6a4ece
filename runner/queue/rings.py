"""The one queue in Redis, as both ends have it: rings are taken for good, or thrown away."""

import redis
from rq import Queue
from rq.job import Job

QUEUE = "executions"
DISCARDED = 1000
"""Jobs that are thrown away at once."""

_DISCARD = """
local ids = redis.call('LPOP', KEYS[1], ARGV[1]) or {}
for _, id in ipairs(ids) do redis.call('UNLINK', ARGV[2] .. id) end
return #ids
"""


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


def discard(connection: "redis.Redis") -> int:
    """Throw away the first of what waits, unread; return how many. Lost rings are rung again."""
    found = connection.eval(
        _DISCARD, 1, RingList.key_of(), DISCARDED, Job.redis_job_namespace_prefix
    )
    return int(found)
