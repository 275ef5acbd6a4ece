"""The findings of `runner doctor` about a PostgreSQL and a Redis that the operator supplies."""

from collections.abc import Iterator

from runner.base.settings import Settings
from runner.cli.credentials import LOGINS
from runner.cli.host import Finding, Status
from runner.cli.service_urls import ServiceUrl
from runner.queue.eviction import REFUSES, eviction_policy, lacking_right
from runner.store.transport import Transport, transport
from runner.words.errors import QueueUnavailable, StoreUnavailable

OLDEST_POSTGRESQL = 150_000


def services(settings: Settings) -> Iterator[Finding]:
    """Yield how each service is reached; nothing of those that this host's settings do not name."""
    yield from _postgresql(settings)
    yield from redis(settings)


def redis(settings: Settings) -> Iterator[Finding]:
    """Yield whether Redis answers, over what, and whether it refuses when it is full."""
    if settings.redis_url is None:
        return
    url = ServiceUrl.read(settings.redis_url.get_secret_value())
    if any(url.faults()):
        # Those are told as faults of the URL: nothing can be connected with it.
        return
    try:
        lacking = lacking_right(settings.redis_url)
        policy = eviction_policy(settings.redis_url) if lacking is None else ""
    except QueueUnavailable as error:
        yield Finding("Redis", Status.MISSING, error.detail, "look at RUNNER_REDIS_URL")
        return
    if lacking is not None:
        yield Finding(
            "Redis",
            Status.MISSING,
            f"its user may not {lacking}",
            "give it the rights that docs/operations/tls.md says",
        )
        return
    over = "over TLS, " if url.is_verified else ""
    if policy == REFUSES:
        yield Finding("Redis", Status.OK, f"{over}maxmemory-policy {policy}")
    else:
        yield Finding(
            "Redis",
            Status.MISSING,
            f"{over}maxmemory-policy {policy}: once it is full, it forgets rates and what is to "
            "run",
            f"set maxmemory-policy {REFUSES}",
        )


def _postgresql(settings: Settings) -> Iterator[Finding]:
    for name in LOGINS:
        url = getattr(settings, name)
        if not name.startswith("database") or url is None:
            continue
        variable = f"RUNNER_{name.upper()}"
        read = ServiceUrl.read(url.get_secret_value())
        if any(read.faults()):
            continue
        try:
            found = transport(url)
        except StoreUnavailable as error:
            yield Finding("PostgreSQL", Status.MISSING, error.detail, f"look at {variable}")
            continue
        yield _reached(variable, found, verified=read.is_verified)


def _reached(variable: str, found: Transport, *, verified: bool) -> Finding:
    major = found.server // 10_000
    if found.server < OLDEST_POSTGRESQL:
        return Finding(
            "PostgreSQL", Status.MISSING, f"{major}", "it must be 15 or newer: upgrade it"
        )
    if found.tls is not None:
        over = f"{found.tls}{'' if verified else ', whose other end was not verified'}"
    else:
        over = "a socket of this host" if found.socket else "a connection without TLS"
    return Finding("PostgreSQL", Status.OK, f"{variable}: version {major}, over {over}")
