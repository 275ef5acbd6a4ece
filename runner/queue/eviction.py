"""What Redis does when it is full: it must refuse, and not forget what it was told."""

from pydantic import SecretStr
from redis.exceptions import RedisError

from runner.queue.connections import connect
from runner.words.errors import QueueUnavailable

REFUSES = "noeviction"


def eviction_policy(url: SecretStr) -> str:
    """Return Redis' `maxmemory-policy`. Raises QueueUnavailable if it does not answer.

    It is read from `INFO`, which hosted services permit, too, and not from `CONFIG`.
    """
    try:
        with connect(url) as connection:
            return str(connection.info("memory")["maxmemory_policy"])
    except (RedisError, KeyError) as error:
        raise QueueUnavailable("Redis does not answer") from error
