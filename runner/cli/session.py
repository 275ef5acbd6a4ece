"""The deployment of a command: the one configured, the one `runner dev` runs, or its own.

If an HTTP command finds no deployment, it starts the stack for as long as it needs it. A command of
operators takes what the environment does not set from `runner dev`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pydantic import SecretStr

from agent_runner import Client
from runner.base.settings import ClientSettings, Settings
from runner.cli.address import Address, found
from runner.cli.console import err, read_settings
from runner.words.errors import SetupError


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
    # Imported here: most commands find a deployment, and need no PostgreSQL.
    from runner.cli.embedded import embedded

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
