"""A deployment that a command starts for itself, and stops when it is done."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from anyio.from_thread import start_blocking_portal
from pydantic import SecretStr

from runner.base.settings import Settings
from runner.cli.address import Address
from runner.quotas.sizes import load_sizes
from runner.store.db import Database
from runner.tenants.tenancy import NewKey, create_key
from runner.words.principal import Role, Tier

DEV_TENANT = "dev"


@contextmanager
def embedded(settings: Settings, *, ephemeral: bool = False) -> Iterator[Address]:
    """Run the embedded stack inside the context, in a thread with an event loop of its own."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(deployment(settings, ephemeral=ephemeral)) as address,
    ):
        yield address


@asynccontextmanager
async def deployment(settings: Settings, *, ephemeral: bool) -> AsyncIterator[Address]:
    """Run the embedded stack with a first key, on a free port, inside the context."""
    from runner.embedded.stack import stack

    async with stack(settings.model_copy(update={"port": 0}), ephemeral=ephemeral) as running:
        await running.ready()
        key = await first_key(running.services.owner_url, settings)
        yield Address(url=running.url, api_key=key.token)


async def first_key(owner_url: str, settings: Settings) -> NewKey:
    """Make a key of the `dev` tenant."""
    sizes = load_sizes(settings.profiles_path)
    async with Database(SecretStr(owner_url), max_size=1) as owner:
        return await create_key(
            owner,
            tenant=DEV_TENANT,
            role=Role.OWNER,
            name="first key",
            max_limits=sizes["large"],
            tier=Tier.ENTERPRISE,
        )
