"""The one queue in Redis, for both ends: a ring is taken for good, or thrown away."""

import redis
from rq import Queue
from rq.job import Job

QUEUE = "executions"
OLDEST = (6, 2, 0)
DISCARDED = 1000
"""How many jobs are thrown away at once."""

_DISCARD = """
local ids = redis.call('LPOP', KEYS[1], ARGV[1]) or {}
for _, id in ipairs(ids) do redis.call('UNLINK', ARGV[2] .. id) end
return #ids
"""


class RingList(Queue):
    """RQ's queue, except that a ring is taken for good; if its consumer loses it, we ring again.

    RQ moves a job to a second list when it takes it, which only RQ's maintenance would empty.
    """

    @classmethod
    def key_of(cls) -> str:
        """Return the key of the one queue."""
        return f"{cls.redis_queue_namespace_prefix}{QUEUE}"

    def get_redis_server_version(self) -> tuple[int, int, int]:
        """Return the oldest release that we support, without asking Redis: RQ needs no more."""
        return OLDEST

    @classmethod
    def lmove(
        cls, connection: "redis.Redis", queue_key: str, timeout: int | None
    ) -> tuple[str, bytes] | None:
        """Take the next ring."""
        found: tuple[str, bytes] | None = cls.lpop([queue_key], timeout, connection)
        return found


def discard(connection: "redis.Redis") -> int:
    """Throw away the first waiting rings, unread; return how many. Lost rings are rung again."""
    found = connection.eval(
        _DISCARD, 1, RingList.key_of(), DISCARDED, Job.redis_job_namespace_prefix
    )
    return int(found)
