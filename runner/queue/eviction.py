"""What `runner doctor` asks Redis: whether it refuses when full, and whether we may do our work."""

from collections.abc import Callable, Mapping

import redis
from pydantic import SecretStr
from redis.exceptions import RedisError

from runner.queue.changes import CHANNEL
from runner.queue.connections import connect
from runner.queue.rings import RingList
from runner.words.errors import QueueUnavailable

REFUSES = "noeviction"
_NOBODY = b""
"""An announcement that concerns nothing: whoever hears it passes it over."""


def eviction_policy(url: SecretStr) -> str:
    """Return Redis' `maxmemory-policy`. Raises QueueUnavailable if it does not answer.

    It is read from `INFO`, which hosted services permit, too, and not from `CONFIG`.
    """
    try:
        with connect(url) as connection:
            return str(connection.info("memory")["maxmemory_policy"])
    except (RedisError, KeyError) as error:
        raise QueueUnavailable(f"Redis does not answer: {type(error).__name__}") from error


def lacking_right(url: SecretStr) -> str | None:
    """Return what this login may not do although we need it; None if it may do all.

    Raises QueueUnavailable if Redis does not answer.
    """
    try:
        with connect(url) as connection:
            for what, need in _needs(connection).items():
                try:
                    need()
                except redis.ResponseError as error:
                    return f"{what}: {error}"
    except RedisError as error:
        raise QueueUnavailable(f"Redis does not answer: {type(error).__name__}") from error
    return None


def _needs(connection: "redis.Redis") -> Mapping[str, Callable[[], object]]:
    """Return one command of each kind that APIs and workers use; none changes anything."""
    return {
        "see what is to run": lambda: connection.llen(RingList.key_of()),
        "run scripts that read the time": lambda: connection.eval("return redis.call('TIME')", 0),
        "announce changes": lambda: connection.publish(CHANNEL, _NOBODY),
    }
