"""What every command shares: where it prints, and how it fails."""

import functools
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import typer
from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails
from rich.console import Console
from rich.markup import escape

from runner.base.settings import Settings
from runner.client import ApiError
from runner.words.errors import RunnerError, SetupError
from runner.words.text import escaped, printable

P = ParamSpec("P")
R = TypeVar("R")

out = Console()
err = Console(stderr=True)

EXIT_FAILURE = 1
EXIT_SETUP = 78
"""EX_CONFIG of sysexits.h: this host or its configuration cannot run the product."""
_JSON = {
    "tuple_type": 'must be a JSON list, such as ["a", "b"]',
    "dict_type": 'must be a JSON object, such as {"name": "value"}',
    "model_type": "must be a JSON object",
}
"""What is said of text that is not JSON, where the setting is a list or an object."""


def fail(message: str, code: int = EXIT_FAILURE) -> NoReturn:
    """Say why on stderr and end."""
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    raise typer.Exit(code)


def shown(text: str) -> str:
    """Return foreign text so that it neither styles nor steers the terminal."""
    return escape(printable(text, escaped))


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our own failures into one line and an exit code; others keep their traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except SetupError as error:
            fail(error.detail, EXIT_SETUP)
        except (RunnerError, ApiError) as error:
            fail(error.detail)

    return wrapped


def read_settings() -> Settings:
    """Read the settings once. Raises SetupError naming each wrong variable, without its value."""
    try:
        return Settings()
    except ValidationError as error:
        raise SetupError("settings: " + "; ".join(map(_wrong, error.errors()))) from None


def _wrong(part: ErrorDetails) -> str:
    """Return what is wrong with a setting: its variable, and not the value, which may be secret."""
    if not part["loc"]:
        return part["msg"]
    name, *place = map(str, part["loc"])
    within = f" ({'.'.join(place)})" if place else ""
    message = _JSON.get(part["type"], part["msg"]) if not place else part["msg"]
    return f"RUNNER_{name.upper()}{within}: {message}"


def required(url: SecretStr | None, variable: str) -> SecretStr:
    """Return a URL that production must set. Raises SetupError when it is not."""
    if url is None:
        raise SetupError(
            f"{variable} is not set; set it, or use `runner dev` for a private deployment"
        )
    return url
