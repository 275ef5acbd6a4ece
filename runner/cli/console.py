"""Printing, reading and failing, as all commands share them."""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import typer
from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from agent_runner import ApiError, NotAuthenticated, UnsafeArchive
from runner.base.settings import Settings, set_variables
from runner.words.complaints import complaint
from runner.words.errors import RunnerError, SetupError
from runner.words.text import escaped, printable

P = ParamSpec("P")
R = TypeVar("R")

out = Console()
err = Console(stderr=True)
_OF_CLIENTS = {"RUNNER_URL", "RUNNER_API_KEY"}
_NEAR = 0.9
"""How alike two names must be for one to be taken for the other misspelt (difflib's ratio)."""

EXIT_FAILURE = 1
EXIT_BROKEN_PIPE = 141
"""The exit code that a shell reports for a program that SIGPIPE ended."""
EXIT_SETUP = 78
"""EX_CONFIG of sysexits.h: this host or its configuration cannot run the product."""
_JSON = {
    "tuple_type": 'must be a JSON list, such as ["a", "b"]',
    "dict_type": 'must be a JSON object, such as {"name": "value"}',
    "model_type": "must be a JSON object",
}
"""Messages for text that is not JSON, for settings that are a list or an object."""


def fail(message: str, code: int = EXIT_FAILURE) -> NoReturn:
    """Print the reason on stderr and exit."""
    # It may name files or quote what a program wrote. Do not wrap it: in a pipe, an error is one
    # line, and a terminal wraps by itself.
    said = "\n".join(map(shown, message.split("\n")))
    err.print(f"[bold red]error:[/] {said}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def shown(text: str) -> str:
    """Return untrusted text so that it neither styles nor controls the terminal."""
    return escape(printable(text, escaped))


def plain(text: str) -> Text:
    """Return untrusted text for a table, so that it neither styles nor controls the terminal."""
    return Text("\n".join(printable(line, escaped) for line in text.split("\n")))


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors, and the system's errors about files, into one line and an exit code.

    Any other exception is a bug, and keeps its traceback.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except SetupError as error:
            fail(error.detail, EXIT_SETUP)
        except RunnerError as error:
            fail(error.detail)
        except NotAuthenticated as error:
            fail(f"{_refusal(error)}; check RUNNER_API_KEY and RUNNER_URL")
        except ApiError as error:
            fail(_refusal(error))
        except UnsafeArchive as error:
            fail(str(error))
        except BrokenPipeError:
            discard_output()
            raise typer.Exit(EXIT_BROKEN_PIPE) from None
        except OSError as error:
            place = f"{error.filename}: " if error.filename is not None else ""
            fail(f"{place}{error.strerror or error}")

    return wrapped


def _refusal(error: ApiError) -> str:
    """Return why the API refused; for an invalid request, each field with its reason."""
    fields = (f"{each['field'].removeprefix('body.')}: {each['message']}" for each in error.errors)
    return "; ".join(fields) or error.detail


def discard_output() -> None:
    """Discard further output: Python flushes stdout when it exits, and would report a failure."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_text(path: Path) -> str:
    """Return the text of a user's file; fail with the place if it is not UTF-8."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        fail(f"{path} is not text in UTF-8: byte 0x{error.object[error.start]:02x} "
             f"at offset {error.start}")  # fmt: skip


def read_settings() -> Settings:
    """Read the settings once, and warn of variables that look like one and are none.

    Raises SetupError that names each wrong variable, not its value.
    """
    for name, near in _misspelt(set_variables()):
        said = f"warning: {name} is no setting: did you mean {near}?"
        err.print(said, highlight=False, markup=False, soft_wrap=True)
    try:
        return Settings()
    except ValidationError as error:
        raise SetupError("settings: " + "; ".join(map(_wrong, error.errors()))) from None


def _misspelt(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each variable that is nearly a setting, and that setting.

    Others may begin with RUNNER_ for reasons of their own: Kubernetes sets several for a service
    of this name.
    """
    known = {f"RUNNER_{name.upper()}" for name in Settings.model_fields} | _OF_CLIENTS
    for name in sorted(set(names) - known):
        import difflib  # slow to load, and nearly never needed

        for near in difflib.get_close_matches(name, sorted(known), n=1, cutoff=_NEAR):
            yield name, near


def _wrong(part: ErrorDetails) -> str:
    """Return what is wrong with a setting: its variable, without the value, which may be secret."""
    if not part["loc"]:
        return complaint(part)
    name, *place = map(str, part["loc"])
    within = f" ({'.'.join(place)})" if place else ""
    message = complaint(part) if place else _JSON.get(part["type"], complaint(part))
    return f"RUNNER_{name.upper()}{within}: {message}"


def required(url: SecretStr | None, variable: str) -> SecretStr:
    """Return a URL that production must set. Raises SetupError if it is not set."""
    if url is None:
        raise SetupError(
            f"{variable} is not set, and no `runner dev` runs with this RUNNER_STATE_DIR: set "
            "the variable, or start `runner dev`"
        )
    return url
