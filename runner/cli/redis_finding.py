"""The finding of `runner doctor` about a Redis that the operator supplies."""

from collections.abc import Iterator

from runner.base.settings import Settings
from runner.cli.host import Finding, Status
from runner.queue.eviction import REFUSES, eviction_policy
from runner.words.errors import QueueUnavailable


def redis(settings: Settings) -> Iterator[Finding]:
    """Yield whether Redis refuses when it is full; nothing if this host's settings name none."""
    if settings.redis_url is None:
        return
    try:
        policy = eviction_policy(settings.redis_url)
    except QueueUnavailable as error:
        yield Finding("Redis", Status.MISSING, error.detail, "look at RUNNER_REDIS_URL")
        return
    if policy == REFUSES:
        yield Finding("Redis", Status.OK, f"maxmemory-policy {policy}")
    else:
        yield Finding(
            "Redis",
            Status.MISSING,
            f"maxmemory-policy {policy}: once it is full, it forgets rates and what is to run",
            f"set maxmemory-policy {REFUSES}",
        )
