"""The deployment of a command: the one configured, the one `runner dev` runs, or its own.

`runner dev` writes how to reach it to a file in the state folder, which only its user can read, and
removes the file when it stops. If an HTTP command finds no deployment, it starts the stack for as
long as it needs it. An operators' command takes what the environment does not set from that file.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from anyio.from_thread import start_blocking_portal
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from agent_runner import Client
from runner.base.settings import ClientSettings, Settings
from runner.cli.console import err, read_settings
from runner.embedded.hold import is_held
from runner.quotas.sizes import load_sizes
from runner.store.db import Database
from runner.tenants.tenancy import NewKey, create_key
from runner.words.errors import SetupError
from runner.words.principal import Role, Tier

if TYPE_CHECKING:
    from runner.embedded.stack import Stack

DEV_TENANT = "dev"


class Address(BaseModel):
    """The address of a deployment, and a key that it accepts."""

    model_config = ConfigDict(frozen=True)

    url: str
    api_key: str


class Beside(Address):
    """The address and key by which a user's other commands reach the deployment of `runner dev`."""

    docker_url: str
    superuser_url: str
    owner_url: str
    operator_url: str

    @classmethod
    def of(cls, running: "Stack", api_key: str) -> "Beside":
        """Return how to reach a running stack."""
        return cls(
            url=running.url,
            api_key=api_key,
            docker_url=running.settings.docker_url,
            superuser_url=running.services.superuser_url,
            owner_url=running.services.owner_url,
            operator_url=running.services.operator_url,
        )


@contextmanager
def announced(settings: Settings, beside: Beside) -> Iterator[None]:
    """Let other commands of this user find the deployment inside the context."""
    path = _file(settings)
    # It is complete when it appears, and only this user can read it (mkstemp's mode).
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "w") as file:
        file.write(beside.model_dump_json())
    Path(partial).rename(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def client(settings: Settings) -> Iterator[Client]:
    """Yield a client of the deployment; if there is none, start the embedded one."""
    with reached(settings) as address, Client(address.url, address.api_key) as connected:
        yield connected


@contextmanager
def reached(settings: Settings) -> Iterator[Address]:
    """Yield the address of the deployment; if there is none, start the embedded one."""
    address = configured() or found(settings)
    if address is not None:
        yield address
        return
    with ExitStack() as whole:
        with err.status("no deployment runs here: starting one for this command"):
            try:
                started = whole.enter_context(embedded(settings))
            except SetupError as error:
                raise SetupError(
                    "RUNNER_URL and RUNNER_API_KEY are not set, no `runner dev` runs with this "
                    f"RUNNER_STATE_DIR, and this command could not start one: {error.detail}"
                ) from error
        yield started


def configured() -> Address | None:
    """Return the deployment that the environment names. Raises SetupError if half is missing."""
    given = ClientSettings()
    if given.url is None and given.api_key is None:
        return None
    if given.url is None or given.api_key is None:
        lacking = "RUNNER_URL" if given.url is None else "RUNNER_API_KEY"
        raise SetupError(f"{lacking} is not set: RUNNER_URL and RUNNER_API_KEY go together")
    key = given.api_key.get_secret_value()
    if not (key.isascii() and key.isprintable()):
        raise SetupError("RUNNER_API_KEY holds characters that no key has: copy it once more")
    return Address(url=given.url, api_key=key)


def found(settings: Settings) -> Beside | None:
    """Return the deployment that `runner dev` runs with the same state folder.

    Raises SetupError if this user may not read the file.
    """
    path = _file(settings)
    try:
        # A process that was killed has left the file.
        return (
            Beside.model_validate_json(path.read_bytes()) if is_held(settings.state_dir) else None
        )
    except FileNotFoundError:
        return None
    except PermissionError:
        raise SetupError(
            f"{path} belongs to the user who runs `runner dev`: be that user, or set RUNNER_URL "
            "and RUNNER_API_KEY"
        ) from None
    except ValidationError:
        raise SetupError(
            f"{path} is not what this release writes: stop `runner dev` and start it again"
        ) from None


def operated() -> Settings:
    """Return the settings, completed with those of `runner dev` for the same state folder.

    What the environment sets has precedence. Logins are taken only if the environment sets none:
    those of two deployments must not be mixed.
    """
    settings = read_settings()
    beside = found(settings)
    if beside is None:
        return settings
    taken: dict[str, object] = {}
    if "docker_url" not in settings.model_fields_set:
        taken["docker_url"] = beside.docker_url
    logins = ("database_superuser_url", "database_owner_url", "database_operator_url",
              "database_api_url", "database_worker_url")  # fmt: skip
    if all(getattr(settings, login) is None for login in logins):
        taken["database_superuser_url"] = SecretStr(beside.superuser_url)
        taken["database_owner_url"] = SecretStr(beside.owner_url)
        taken["database_operator_url"] = SecretStr(beside.operator_url)
    return settings.model_copy(update=taken)


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


def _file(settings: Settings) -> Path:
    return settings.run_dir / "dev.json"
