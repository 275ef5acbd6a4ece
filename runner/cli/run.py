"""`runner run`: a program in a sandbox, as if it ran here: arguments, input, output, exit code.

Ctrl-C cancels it, waits for its end and exits as a shell expects. A second one leaves at once.
"""

import os
import signal
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Annotated, Any, Self

import typer

from agent_runner import Client, Execution
from runner.cli.console import (
    err,
    fail,
    read_settings,
    read_text,
    reports_errors,
    shown,
)
from runner.cli.listing import print_json
from runner.cli.omitted import tell_gap, tell_omitted
from runner.cli.session import client
from runner.words.resources import OutputKeep
from runner.words.sandbox import Isolation

SizeOption = Annotated[
    str | None,
    typer.Option(
        help="A size of limits: `runner profile list`; by default small, or the template's."
    ),
]
ImageOption = Annotated[
    str | None,
    typer.Option(help="The sandbox image, or a template; by default the deployment's first image."),
]
IsolationOption = Annotated[
    Isolation | None, typer.Option(help="The isolation; by default the tenant's.")
]
EgressOption = Annotated[
    list[str] | None,
    typer.Option(help="What it may reach: host, host:port, http://host; repeatable."),
]

SIGNAL_EXIT = 128
EX_SOFTWARE = 70
CODES = {
    "timed_out": 124,
    "out_of_memory": SIGNAL_EXIT + signal.SIGKILL,
    "cancelled": SIGNAL_EXIT + signal.SIGINT,
}
"""Exit codes of programs that were ended: those of timeout(1), the OOM killer and Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Language:
    """The meaning of a file's suffix: the API's name of the language, and its command."""

    name: str
    interpreter: str


LANGUAGES = {
    ".py": Language("python", "python3"),
    ".sh": Language("bash", "bash"),
    ".js": Language("javascript", "node"),
    ".mjs": Language("javascript", "node"),
    ".ts": Language("typescript", "typescript"),
    ".mts": Language("typescript", "typescript"),
}


@reports_errors
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A program: .py, .sh, .js or .ts.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ARGUMENT",
            help="The program's own arguments; put -- before them if the first begins with a dash.",
            show_default=False,
        ),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", help="A file for its workspace; repeatable."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable; repeatable."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="VARIABLE=NAME", help="A secret in a variable; repeatable."),
    ] = None,
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Save the files it makes in this folder."),
    ] = None,
    artifact: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Keep only such files: out/**, *.csv; repeatable."),
    ] = None,
    size: SizeOption = None,
    timeout_s: Annotated[float | None, typer.Option(help="Its time limit in seconds.")] = None,
    image: ImageOption = None,
    isolation: IsolationOption = None,
    egress: EgressOption = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", "-m", metavar="NAME=VALUE", help="A label; repeatable."),
    ] = None,
    output_kb: Annotated[int | None, typer.Option(help="KiB kept of stdout and of stderr.")] = None,
    output_keep: Annotated[
        OutputKeep, typer.Option(help="Which part of longer output to keep.")
    ] = "head",
    *,
    no_stdin: Annotated[
        bool,
        typer.Option(
            "--no-stdin", "-n", help="Give the program no input, even if some is piped here."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print its result as JSON in place of its output.")
    ] = False,
) -> None:
    """Run FILE in a sandbox, stream its output, and exit with its code.

    What is piped or redirected to this command is the program's standard input. Ctrl-C cancels the
    execution; a second Ctrl-C exits at once. The exit code is the program's, 128 + n if signal n
    ended it, 124 if its time was up, 137 if its memory was used up, 130 if it was cancelled, and 70
    if it ended in any other way, such as a failed sandbox or a flood of output.
    """
    limits = {"timeout_s": timeout_s, "output_kb": output_kb}
    submission: dict[str, Any] = {
        **_program(file, arguments or []),
        "env": pairs("-e", env or ()),
        "secret_env": pairs("--secret", secret or ()),
        **({} if size is None else {"size": size}),
        "limits": {name: value for name, value in limits.items() if value is not None},
        "output_keep": output_keep,
        "image": image,
        "isolation": isolation and isolation.value,
        "egress": list(egress or ()),
        "metadata": pairs("-m", metadata or ()),
        "artifacts": list(artifact or ()),
    }
    submission["files"] = _inputs(inputs or (), submission.pop("files", {}))
    # Read this last: it may take long, and errors should come first.
    submission["stdin"] = None if no_stdin else _piped()
    with client(read_settings()) as api, Interruption() as interruption:
        ended = _until_ended(api, submission, interruption, silent=as_json)
        if out_folder is not None:
            save(api, ended, out_folder)
    if as_json:
        print_json(ended)
    else:
        _tell_end(ended)
    raise typer.Exit(interruption.exit_code or exit_code(ended))


def _tell_end(ended: Execution) -> None:
    tell_omitted(ended)
    if ended.state != "succeeded":
        err.print(
            f"[bold]{ended.state}[/] ({ended.reason}): {shown(ended.detail or '')}",
            highlight=False,
            soft_wrap=True,
        )


class Interrupted(Exception):
    """The user, the terminal or the system wants this command to end."""


class Interruption:
    """Handles SIGINT, SIGTERM and SIGHUP: raises the first one where awaited, or keeps it."""

    HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._awaited = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Signals that nohup(1), or a shell for a background job, has ignored stay ignored.
        heard = (each for each in self.HEARD if signal.getsignal(each) is not signal.SIG_IGN)
        self._before = {each: signal.signal(each, self._hear) for each in heard}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def await_(self) -> None:
        """Raise Interrupted from now on, and at once if there was an interruption already."""
        self._awaited = True
        if self.exit_code is not None:
            raise Interrupted

    def _hear(self, number: int, _: FrameType | None) -> None:
        again, self.exit_code = self.exit_code is not None, SIGNAL_EXIT + number
        if again:
            raise typer.Exit(self.exit_code)
        if self._awaited:
            raise Interrupted


class Follower:
    """Passes an execution's output on to the streams that it belongs to."""

    def __init__(self, api: Client, execution_id: str) -> None:
        self._api = api
        self._id = execution_id
        self._after = 0

    def follow(self) -> None:
        """Pass on output, byte for byte, until the execution ends; if called again, continue."""
        sinks = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
        for event in self._api.events(self._id, after=self._after):
            self._after = event.id
            if event.kind in sinks:
                tell_gap(event)
                sinks[event.kind].write(event.raw)
                sinks[event.kind].flush()


def _until_ended(
    api: Client, submission: Mapping[str, Any], interruption: Interruption, *, silent: bool
) -> Execution:
    # An interruption during the submission is kept: before it ends, there is no id to cancel.
    submitted = api.submit(**submission)
    output = Follower(api, submitted.id)
    try:
        interruption.await_()
        if silent:
            return api.wait(submitted)
        output.follow()
    except Interrupted:
        err.print(f"cancelling {submitted.id}; Ctrl-C again leaves at once", highlight=False)
        api.cancel(submitted.id)
        output.follow()
    except BrokenPipeError:
        # SIGPIPE would end a program that ran here in the same way.
        api.cancel(submitted.id)
        raise
    return api.get(submitted.id)


def _program(file: Path, arguments: list[str]) -> dict[str, Any]:
    """Return the fields of a submission that name the program."""
    language = LANGUAGES.get(file.suffix)
    if language is None:
        fail(f"{file}: its suffix must be one of {', '.join(LANGUAGES)}, to name its language")
    code = read_text(file)
    if not code:
        fail(f"{file} is empty")
    if not arguments and file.suffix != ".mjs":
        return {"code": code, "language": language.name}
    # `code` takes no arguments, and in JavaScript it is no module. A command with a file can have
    # both.
    return {
        "command": [language.interpreter, file.name, *arguments],
        "files": {file.name: code},
    }


def _inputs(paths: Iterable[Path], files: Mapping[str, str]) -> dict[str, str | bytes]:
    found: dict[str, str | bytes] = dict(files)
    for path in paths:
        if path.name in found:
            fail(f"-f {path}: there is a file {path.name} for the workspace already")
        found[path.name] = path.read_bytes()
    return found


def is_piped() -> bool:
    """Return whether something is piped or redirected to this command."""
    if sys.stdin is None:
        return False
    return stat.S_IFMT(os.fstat(sys.stdin.fileno()).st_mode) in {stat.S_IFIFO, stat.S_IFREG}


def _piped() -> bytes | None:
    """Return what is piped or redirected to this command, or None if nothing is."""
    return sys.stdin.buffer.read() if is_piped() else None


def pairs(option: str, written: Iterable[str]) -> dict[str, str]:
    """Return the NAME=VALUE pairs that were given to an option."""
    found = {}
    for each in written:
        name, equals, value = each.partition("=")
        if not name or not equals:
            fail(f"{option} {each}: write it as NAME=VALUE")
        found[name] = value
    return found


def save(api: Client, ended: Execution, folder: Path) -> None:
    """Download the artifacts below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for artifact in ended.artifacts:
        target = folder / artifact.path
        if not target.resolve().is_relative_to(folder.resolve()):
            fail(f"artifact {artifact.path!r} would leave {folder}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file, api.download(ended.id, artifact.path) as chunks:
            file.writelines(chunks)


def exit_code(ended: Execution) -> int:
    """Return the program's exit code, or what a shell reports for a program that ended this way."""
    if ended.exit_code is not None and ended.state in {"succeeded", "failed"}:
        return ended.exit_code
    if ended.signal is not None and ended.state == "failed":
        return SIGNAL_EXIT + signal_number(ended.signal)
    return CODES.get(ended.state, EX_SOFTWARE)


def signal_number(name: str) -> int:
    """Return a signal's number by its name."""
    # Most real-time signals have no name: the API gives their number, as in SIG35.
    digits = name.removeprefix("SIG")
    return int(digits) if digits.isdecimal() else signal.Signals[name].value
