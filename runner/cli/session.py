"""Which deployment a command talks to: the one configured, the one `runner dev` runs, or its own.

`runner dev` leaves its address and key in a file of the state folder, readable by its user alone
and removed when it stops. A command that finds neither starts the stack for as long as it needs.
"""

import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from anyio.from_thread import start_blocking_portal
from pydantic import SecretStr

from runner.base.settings import ClientSettings, Settings
from runner.client import Client
from runner.embedded.stack import stack
from runner.quotas.sizes import load_sizes
from runner.store.db import Database
from runner.tenants.tenancy import NewKey, create_key
from runner.words.principal import Role, Tier

DEV_TENANT = "dev"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a deployment answers, and the key it accepts."""

    url: str
    api_key: str


@contextmanager
def announced(settings: Settings, address: Address) -> Iterator[None]:
    """Let other commands of this user find the deployment while the context lasts."""
    path = _file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whole when it appears, and readable by this user alone (mkstemp's mode).
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(address), file)
    Path(partial).rename(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def client(settings: Settings) -> Iterator[Client]:
    """Yield a client of the deployment at hand, starting the embedded one if there is none."""
    address = configured() or found(settings)
    if address is not None:
        with Client(address.url, address.api_key) as connected:
            yield connected
        return
    with embedded(settings) as started, Client(started.url, started.api_key) as connected:
        yield connected


def configured() -> Address | None:
    """Return the deployment that the environment names."""
    given = ClientSettings()
    if given.url is None or given.api_key is None:
        return None
    return Address(given.url, given.api_key.get_secret_value())


def found(settings: Settings) -> Address | None:
    """Return the deployment that `runner dev` runs with the same state folder."""
    try:
        return Address(**json.loads(_file(settings).read_text("utf-8")))
    except FileNotFoundError:
        return None


@contextmanager
def embedded(settings: Settings, *, ephemeral: bool = False) -> Iterator[Address]:
    """Run the embedded stack while the context lasts, in a thread with a loop of its own."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(deployment(settings, ephemeral=ephemeral)) as address,
    ):
        yield address


@asynccontextmanager
async def deployment(settings: Settings, *, ephemeral: bool) -> AsyncIterator[Address]:
    """Run the embedded stack with a first key, on a free port, while the context lasts."""
    async with stack(settings.model_copy(update={"port": 0}), ephemeral=ephemeral) as running:
        await running.ready()
        key = await first_key(running.services.owner_url, settings)
        yield Address(running.url, key.token)


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


def _file(settings: Settings) -> Path:
    return settings.run_dir / "dev.json"
