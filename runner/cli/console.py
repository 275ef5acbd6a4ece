"""What every command shares: where it prints, what it reads, and how it fails."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import typer
from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from runner.base.settings import Settings
from runner.client import ApiError
from runner.words.errors import RunnerError, SetupError
from runner.words.text import escaped, printable

P = ParamSpec("P")
R = TypeVar("R")

out = Console()
err = Console(stderr=True)

EXIT_FAILURE = 1
EXIT_BROKEN_PIPE = 141
"""What a shell reports of a program that SIGPIPE ended."""
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
    # Never cut into lines: in a pipe an error is one line, and a terminal wraps it by itself.
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def shown(text: str) -> str:
    """Return foreign text so that it neither styles nor steers the terminal."""
    return escape(printable(text, escaped))


def plain(text: str) -> Text:
    """Return foreign text for a table: it neither styles nor steers the terminal."""
    return Text("\n".join(printable(line, escaped) for line in text.split("\n")))


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our failures, and the system's about files, into one line and an exit code.

    What is left is a mistake of ours, and keeps its traceback.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except SetupError as error:
            fail(error.detail, EXIT_SETUP)
        except RunnerError as error:
            fail(error.detail)
        except ApiError as error:
            fail(_refusal(error))
        except BrokenPipeError:
            discard_output()
            raise typer.Exit(EXIT_BROKEN_PIPE) from None
        except OSError as error:
            place = f"{error.filename}: " if error.filename is not None else ""
            fail(f"{place}{error.strerror or error}")

    return wrapped


def _refusal(error: ApiError) -> str:
    """Return why the API refused: for a request that is not valid, each field and its reason."""
    fields = (f"{each['field'].removeprefix('body.')}: {each['message']}" for each in error.errors)
    return "; ".join(fields) or error.detail


def discard_output() -> None:
    """Write what still comes to nowhere: Python flushes at its end, and would report a failure."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_text(path: Path) -> str:
    """Return the text of a user's file; say where it is no UTF-8."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        fail(f"{path} is not text in UTF-8: byte 0x{error.object[error.start]:02x} "
             f"at offset {error.start}")  # fmt: skip


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
            f"{variable} is not set, and no `runner dev` runs with this RUNNER_STATE_DIR: set "
            "the variable, or start `runner dev`"
        )
    return url
