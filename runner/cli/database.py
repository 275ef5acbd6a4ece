"""What operators' commands do in PostgreSQL: one login, one connection, and why if it fails."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import SecretStr

from runner.base.settings import Settings
from runner.cli.console import required
from runner.store.db import Database, require_reachable

T = TypeVar("T")
Work = Callable[[Database], Awaitable[T]]


def as_owner(settings: Settings, work: Work[T]) -> T:
    """Return what the work returns with the login of the schema's owner.

    Raises SetupError when there is no such login, StoreUnavailable when PostgreSQL refuses it.
    """
    return _as(required(settings.database_owner_url, "RUNNER_DATABASE_OWNER_URL"), work)


def as_operator(settings: Settings, work: Work[T]) -> T:
    """Return what the work returns with the operator's login. Raises as `as_owner` does."""
    return _as(required(settings.database_operator_url, "RUNNER_DATABASE_OPERATOR_URL"), work)


def _as(url: SecretStr, work: Work[T]) -> T:
    async def run() -> T:
        await require_reachable(url)
        async with Database(url, max_size=1) as database:
            return await work(database)

    return asyncio.run(run())
