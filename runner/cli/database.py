"""Runs operators' work in PostgreSQL: one login, one connection, and the reason of a failure."""

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
    """Do the work with the login of the schema's owner, and return its result.

    Raises SetupError if there is no such login, and StoreUnavailable if PostgreSQL refuses it.
    """
    return _as(required(settings.database_owner_url, "RUNNER_DATABASE_OWNER_URL"), work)


def as_operator(settings: Settings, work: Work[T]) -> T:
    """Do the work with the operator's login, and return its result. Raises as `as_owner` does."""
    return _as(required(settings.database_operator_url, "RUNNER_DATABASE_OPERATOR_URL"), work)


def _as(url: SecretStr, work: Work[T]) -> T:
    async def run() -> T:
        await require_reachable(url)
        async with Database(url, max_size=1) as database:
            return await work(database)

    return asyncio.run(run())
