"""Connections to Redis that never wait long: for an answer, at most a second or so.

By itself, redis-py tries each command ten times, with pauses, and waits for an answer without end.
Here nothing is repeated silently: the caller decides when to ask again, after `RETRY_S` at most.
Time-outs find a peer that has vanished, and where a connection only listens, TCP keepalives do.
"""

from typing import Any

import redis
import redis.asyncio
from pydantic import SecretStr
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from runner.base.lost_peers import KEEPALIVE

TIMEOUT_S = 1.0
"""How long Redis may take to answer, or to accept a connection."""
RETRY_S = 1.0
"""Pause after a failure before Redis is asked again. So it is found two seconds after its return at
latest."""


def connect(url: SecretStr, *, blocks_s: float = 0) -> "redis.Redis":
    """Return a connection for threads; one command on it may block for `blocks_s`."""
    return redis.Redis.from_url(
        url.get_secret_value(),
        socket_timeout=blocks_s + TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


def connect_async(url: SecretStr, *, listens: bool = False) -> "redis.asyncio.Redis":
    """Return a connection for the loop; one that `listens` may wait without limit."""
    options: dict[str, Any] = {}
    if not url.get_secret_value().startswith("unix:"):
        options = {"socket_keepalive": True, "socket_keepalive_options": KEEPALIVE}
    return redis.asyncio.Redis.from_url(
        url.get_secret_value(),
        socket_timeout=None if listens else TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=AsyncRetry(NoBackoff(), 0),
        **options,
    )
