"""Connections to Redis for what a request waits for: short answers, and nothing tried again.

By itself, redis-py tries each command ten times, with pauses, and waits for an answer without end.
A request that waits for a count would hold its place all that time. Here, the caller decides what
the lack of an answer means.
"""

from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def short_pool(
    url: SecretStr, *, answer_s: float, connections: int | None = None
) -> ConnectionPool:
    """Return a pool whose commands fail if Redis needs longer than `answer_s`.

    With `connections`, whoever finds all of these in use waits for one, also for `answer_s`.
    """
    options = {
        "socket_timeout": answer_s,
        "socket_connect_timeout": answer_s,
        "retry": Retry(NoBackoff(), 0),
    }
    if connections is None:
        return ConnectionPool.from_url(url.get_secret_value(), **options)
    return BlockingConnectionPool.from_url(
        url.get_secret_value(), max_connections=connections, timeout=answer_s, **options
    )
