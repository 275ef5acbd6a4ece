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
from runner.client import Client, Execution
from runner.words.resources import OutputKeep
from runner.words.sandbox import Isolation

SIGNAL_EXIT = 128
EX_SOFTWARE = 70
CODES = {
    "timed_out": 124,
    "out_of_memory": SIGNAL_EXIT + signal.SIGKILL,
    "cancelled": SIGNAL_EXIT + signal.SIGINT,
}
"""Of programs that were ended: as timeout(1), the kernel's out-of-memory killer and Ctrl-C do."""


@dataclass(frozen=True, slots=True)
class Language:
    """What a suffix says of a program: the API's name for it, and the command that runs it."""

    name: str
    interpreter: str


LANGUAGES = {
    ".py": Language("python", "python3"),
    ".sh": Language("bash", "bash"),
    ".js": Language("javascript", "node"),
    ".mjs": Language("javascript", "node"),
}


@reports_errors
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A program: .py, .sh or .js.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ARGUMENT",
            help="The program's own arguments; put -- before any that begin with a dash.",
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
    size: Annotated[str, typer.Option(help="A size of limits: `runner profile list`.")] = "small",
    timeout_s: Annotated[float | None, typer.Option(help="Seconds it may take.")] = None,
    image: Annotated[
        str | None, typer.Option(help="The sandbox image; by default the deployment's first.")
    ] = None,
    isolation: Annotated[
        Isolation | None, typer.Option(help="The isolation; by default the tenant's.")
    ] = None,
    egress: Annotated[
        list[str] | None,
        typer.Option(help="What it may reach: host, host:port, http://host; repeatable."),
    ] = None,
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
        typer.Option("--no-stdin", "-n", help="Give it no input, even if some is piped here."),
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
        "size": size,
        "limits": {name: value for name, value in limits.items() if value is not None},
        "output_keep": output_keep,
        "image": image,
        "isolation": isolation and isolation.value,
        "egress": list(egress or ()),
        "metadata": pairs("-m", metadata or ()),
        "artifacts": list(artifact or ()),
    }
    submission["files"] = _inputs(inputs or (), submission.pop("files", {}))
    # Last, as it may take long: what is wrong is told before.
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
    """Hears SIGINT, SIGTERM and SIGHUP: the first is raised where it is awaited, else kept."""

    HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._awaited = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # What nohup(1), or a shell for what it runs in the background, has ignored stays so.
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
    """What an execution writes, passed on to the streams that it belongs to."""

    def __init__(self, api: Client, execution_id: str) -> None:
        self._api = api
        self._id = execution_id
        self._after = 0

    def follow(self) -> None:
        """Pass on what comes, byte for byte, until the execution ends; go on where it stopped."""
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
    # An interruption while it is submitted is kept: nobody would know what to cancel.
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
        # As SIGPIPE would end a program that ran here.
        api.cancel(submitted.id)
        raise
    return api.get(submitted.id)


def _program(file: Path, arguments: list[str]) -> dict[str, Any]:
    """Return what of a submission names the program."""
    language = LANGUAGES.get(file.suffix)
    if language is None:
        fail(f"{file}: what it is written in is told by its suffix: {', '.join(LANGUAGES)}")
    code = read_text(file)
    if not code:
        fail(f"{file} is empty")
    if not arguments and file.suffix != ".mjs":
        return {"code": code, "language": language.name}
    # `code` takes no arguments and, in JavaScript, is no module; the file of a command is either.
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


def _piped() -> bytes | None:
    """Return what is piped or redirected to this command, or None from a terminal or nothing."""
    if sys.stdin is None:
        return None
    kind = stat.S_IFMT(os.fstat(sys.stdin.fileno()).st_mode)
    return sys.stdin.buffer.read() if kind in {stat.S_IFIFO, stat.S_IFREG} else None


def pairs(option: str, written: Iterable[str]) -> dict[str, str]:
    """Return what an option was given as NAME=VALUE, each time it was given."""
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
    """Return the program's exit code, or what a shell reports of one that was ended so."""
    if ended.exit_code is not None and ended.state in {"succeeded", "failed"}:
        return ended.exit_code
    if ended.signal is not None and ended.state == "failed":
        return SIGNAL_EXIT + _number(ended.signal)
    return CODES.get(ended.state, EX_SOFTWARE)


def _number(name: str) -> int:
    # Most real-time signals have no name: the API tells them by number, as SIG35.
    digits = name.removeprefix("SIG")
    return int(digits) if digits.isdecimal() else signal.Signals[name].value
