"""The table of commands. Each is imported when it is called, so none waits for what others need."""

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_group

from runner.cli.passing_on import PassesOn

MARKUP: Final = "markdown"
COMMANDS: Mapping[str, str] = {
    "dev": "serve:dev",
    "demo": "demo:demo",
    "api": "serve:api",
    "worker": "serve:worker",
    "migrate": "operate:migrate",
    "backup": "backup:backup",
    "restore": "backup:restore",
    "doctor": "operate:doctor",
    "top": "top:top",
    "verify": "verify:verify",
    "run": "run:run",
    "mcp": "mcp:mcp",
    "usage": "usage:usage",
    "explain": "explain:explain",
    "agents": "agents:agents",
    "tenants": "tenants:tenants",
    "operators": "operators:operators",
    "nodes": "nodes:nodes",
    "members": "members:members",
    "keys": "keys:keys",
    "images": "operate:images",
    "executions": "use:executions",
    "sandbox": "sandbox:sandbox",
    "snapshot": "snapshots:snapshots",
    "templates": "templates:templates",
    "files": "files:files",
    "audit": "audit:audit",
    "profile": "profile:profile",
    "secrets": "secrets:secrets",
    "receipt": "receipt:receipt",
    "signing": "receipt:signing",
}
"""For each command, its module in this package and its name there: a function, or a group."""
PASSING_ON = frozenset({"run"})
"""Those whose last argument is passed on to a program."""


class _Commands(MutableMapping[str, Any]):
    """Typer's commands by their names, each made at its first use."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _command(name, self._places[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._places, **self._made})

    def __len__(self) -> int:
        return len({**self._places, **self._made})

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        raise TypeError("commands stay")


def _command(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    found = getattr(import_module(f"runner.cli.{module}"), attribute)
    alone = typer.Typer(rich_markup_mode=MARKUP)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
    else:
        alone.command(name, cls=PassesOn if name in PASSING_ON else None)(found)
    return get_group(alone).commands[name]


class _Table(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands(COMMANDS)


app = typer.Typer(
    name="runner",
    cls=_Table,
    help="Self-hosted, multi-tenant runner for code written by AI agents.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=MARKUP,
)


@app.callback()
def _runner() -> None:
    """Typer makes a group of an app without commands of its own only if it has this."""
