"""Connections to Redis that wait for nothing longer than a second or so.

redis-py tries each command ten times by itself, with pauses, and waits without end for an answer.
Here nothing is tried again unseen: who asks says when to ask again, `RETRY_S` later at most. A
peer that is gone without a word is found by time-outs, and where one listens by TCP keepalives.
"""

import socket
from typing import Any

import redis
import redis.asyncio
from pydantic import SecretStr
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT_S = 1.0
"""How long Redis may take to answer, or to accept a connection."""
RETRY_S = 1.0
"""How long after a failure Redis is asked again: two seconds after it is back at latest."""
_KEEPALIVE = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 3}


def connect(url: SecretStr, *, blocks_s: float = 0) -> "redis.Redis":
    """Return a connection for threads, of which one command may block for `blocks_s`."""
    return redis.Redis.from_url(
        url.get_secret_value(),
        socket_timeout=blocks_s + TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


def connect_async(url: SecretStr, *, listens: bool = False) -> "redis.asyncio.Redis":
    """Return a connection for the loop; one that `listens` may hear nothing for ever."""
    options: dict[str, Any] = {}
    if not url.get_secret_value().startswith("unix:"):
        options = {"socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE}
    return redis.asyncio.Redis.from_url(
        url.get_secret_value(),
        socket_timeout=None if listens else TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=AsyncRetry(NoBackoff(), 0),
        **options,
    )
