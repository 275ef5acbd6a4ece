"""A command imports little before it knows that it needs more."""

import subprocess
import sys

import pytest

CLIENTS = ("run", "usage", "explain", "executions", "sandbox", "snapshot", "files", "templates")
"""Commands that speak with an API, and need nothing else of the product."""
OF_A_SERVER = ("psycopg", "redis", "rq", "fastapi", "cryptography", "docker")


def loaded(code: str, *wanted: str) -> set[str]:
    """Return which of these modules a new interpreter has loaded after it ran some code."""
    program = f"import sys\n{code}\nprint(*(set({wanted!r}) & sys.modules.keys()))"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    return set(told.stdout.split())


def commands(*names: str) -> str:
    """Return the code that loads these commands, or all."""
    return (
        "from typer.main import get_command\nfrom runner.cli.app import app\n"
        f"table = get_command(app).commands\n[table[name] for name in {names!r} or table]"
    )


def test_neither_a_client_nor_the_api_loads_docker_or_a_node() -> None:
    """What listens for clients does not even have Docker's client."""
    code = f"{commands()}\nimport runner.api.app"
    assert loaded(code, "docker", "runner.node", "runner.sandbox.launch") == set()


def test_the_table_of_commands_loads_none() -> None:
    """So a command does not wait for what others need."""
    ours = ("runner.cli.run", "runner.cli.serve", "runner.cli.session")
    assert loaded("import runner.cli.app", *ours) == set()
    assert loaded(commands(), *ours) == set(ours)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_clients_command_starts_without_what_servers_need(name: str) -> None:
    """The control: a command of operators needs PostgreSQL."""
    assert loaded(commands(name), *OF_A_SERVER) == set()
    assert "psycopg" in loaded(commands("tenants"), *OF_A_SERVER)
