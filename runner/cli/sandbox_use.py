"""Commands, output and files of a sandbox, as if they were here."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import IO, Annotated, Any

import typer

from agent_runner import ApiError, OutputEvent, Process
from agent_runner.types import omission
from runner.cli import human
from runner.cli.console import err, fail, out, read_settings, reports_errors
from runner.cli.ids import find_sandbox
from runner.cli.listing import AsJson, print_json, print_rows
from runner.cli.run import (
    CODES,
    EX_SOFTWARE,
    SIGNAL_EXIT,
    Interrupted,
    Interruption,
    is_piped,
    pairs,
    signal_number,
)
from runner.cli.session import client

PIECE = 64 * 1024
HERE = "-"

SandboxArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The sandbox's id, as `sandbox list` shows it, or enough of its beginning.",
    ),
]


@reports_errors
def execute(
    sandbox_id: SandboxArgument,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND…",
            help="A program and its arguments. Put options of this command before it.",
        ),
    ],
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable; repeatable."),
    ] = None,
    cwd: Annotated[str | None, typer.Option("--cwd", "-w", help="The folder it starts in.")] = None,
    timeout_s: Annotated[float | None, typer.Option(help="Its time limit in seconds.")] = None,
    tag: Annotated[str | None, typer.Option(help="A label of your own.")] = None,
    *,
    shell: Annotated[
        bool, typer.Option("--shell", "-s", help="COMMAND is one line for `bash -c`.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Print its number and leave it running.")
    ] = False,
    no_stdin: Annotated[
        bool,
        typer.Option(
            "--no-stdin", "-n", help="Give the program no input, even if some is piped here."
        ),
    ] = False,
) -> None:
    """Run a command in a sandbox, stream its output, and exit with its code.

    What is piped or redirected to this command is its standard input. Ctrl-C is passed on to it; a
    second Ctrl-C exits at once and leaves it running. The exit code is the command's, 128 + n if
    signal n ended it, 124 if its time was up, and 70 if nobody knows how it ended.
    """
    if shell and len(command) > 1:
        fail("--shell: give the line as one argument, in quotes")
    piped = not (no_stdin or detach) and is_piped()
    wanted: dict[str, Any] = {
        "env": pairs("-e", env or ()),
        "cwd": cwd,
        "timeout_s": timeout_s,
        "tag": tag,
        "keep_stdin_open": piped,
    }
    with client(read_settings()) as api, Interruption() as interruption:
        # An interruption while it is started is kept: nobody would know what to signal.
        sandbox = find_sandbox(api, sandbox_id)
        try:
            started = sandbox.start(command[0] if shell else command, **wanted)
        except ApiError as error:
            if error.reason == "ENOENT" and not shell and " " in command[0]:
                fail(f"{error}; --shell runs a line in a shell")
            raise
        if detach:
            out.print(started.number, highlight=False)
            return
        if piped:
            Thread(target=_feed, args=(sandbox.id, started.number), daemon=True).start()
        ended = _followed(started, interruption)
    raise typer.Exit(exit_code(ended))


@reports_errors
def processes(sandbox_id: SandboxArgument, *, as_json: AsJson = False) -> None:
    """List a sandbox's processes, in the order of their starts."""
    with client(read_settings()) as api:
        found = find_sandbox(api, sandbox_id).processes()
    if as_json:
        print_json(found)
        return
    print_rows(
        ("number", "state", "exit", "started", "output", "tag", "command"),
        (
            (
                str(each.process),
                each.state,
                each.signal or ("" if each.exit_code is None else str(each.exit_code)),
                human.age(each.started_at),
                human.size(each.output_bytes),
                each.tag or "",
                " ".join(each.command),
            )
            for each in found
        ),
        none="no process was started in it",
    )


@reports_errors
def logs(
    sandbox_id: SandboxArgument,
    process: Annotated[int, typer.Argument(help="The process's number.")],
    offset: Annotated[int, typer.Option(min=0, help="From which byte on.")] = 0,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it ends.")] = False,
) -> None:
    """Print what a process has written, as far as its sandbox keeps it."""
    with client(read_settings()) as api:
        found = find_sandbox(api, sandbox_id).process(process)
        for event in found.output(offset=offset, follow=follow):
            pass_on(event)


@reports_errors
def copy(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A file: here, or ID:PATH; - for stdin.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="Where to: here, or ID:PATH; - for stdout.")
    ],
    *,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Copy what is in a folder into a folder.")
    ] = False,
) -> None:
    """Copy a file into a sandbox or out of it. ID:PATH names a file in a sandbox, ID: its home.

    With -r, SOURCE and TARGET are folders: what is in the one is copied into the other, which is
    made if it is missing. With -, a folder is a tar archive.
    """
    match in_sandbox(source), in_sandbox(target):
        case (None, (sandbox_id, path)):
            (_put_folder if recursive else _put)(source, sandbox_id, path)
        case ((sandbox_id, path), None):
            (_get_folder if recursive else _get)(sandbox_id, path, target)
        case _:
            fail("exactly one of the two must be ID:PATH, a file in a sandbox")


def in_sandbox(text: str) -> tuple[str, str] | None:
    """Return the sandbox and the path that an argument names; None for a file here.

    An empty path is the home folder, as for scp. `./a:` is a file here whose name has a colon.
    """
    sandbox_id, colon, path = text.partition(":")
    if not colon or not sandbox_id or "/" in sandbox_id:
        return None
    return sandbox_id, path or "./"


def pass_on(event: OutputEvent) -> None:
    """Write a piece of output to the stream that it belongs to, byte for byte."""
    sinks = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    if event.kind in sinks:
        sinks[event.kind].write(event.raw)
        sinks[event.kind].flush()
    elif event.kind == "gap":
        err.print(omission(event.omitted_bytes), markup=False, highlight=False, soft_wrap=True)


def exit_code(ended: OutputEvent | None) -> int:
    """Return the command's exit code, or what a shell reports of one that was ended so."""
    if ended is None:
        return EX_SOFTWARE
    if ended.timed_out:
        return CODES["timed_out"]
    if ended.signal is not None:
        return SIGNAL_EXIT + signal_number(ended.signal)
    return EX_SOFTWARE if ended.exit_code is None else ended.exit_code


def _followed(process: Process, interruption: Interruption) -> OutputEvent | None:
    """Pass on what a process writes until it ends, and an interruption to the process."""
    try:
        interruption.await_()
        return _until_ended(process)
    except Interrupted:
        heard = (interruption.exit_code or SIGNAL_EXIT + signal.SIGINT) - SIGNAL_EXIT
        process.signal(heard)
        return _until_ended(process)


def _until_ended(process: Process) -> OutputEvent | None:
    last = None
    for last in process.output():
        pass_on(last)
    return last if last is not None and last.kind == "ended" else None


def _feed(sandbox_id: str, number: int) -> None:
    """Write what is piped here to a process's stdin, as it comes."""
    # A client is not for several threads: this one is the thread's own.
    with client(read_settings()) as api:
        try:
            process = find_sandbox(api, sandbox_id).process(number)
            while piece := os.read(sys.stdin.fileno(), PIECE):
                process.write(piece)
            process.close_stdin()
        except ApiError:
            # It has ended, or reads no more. The other thread tells how.
            return


def _put(local: str, sandbox_id: str, path: str) -> None:
    with client(read_settings()) as api:
        files = find_sandbox(api, sandbox_id).files
        if local == HERE:
            files.write(path, _pieces(sys.stdin.buffer))
            return
        source = Path(local)
        with source.open("rb") as content:
            name = path + source.name if path.endswith("/") else path
            files.write(name, content, mode=source.stat().st_mode & 0o777)


def _get(sandbox_id: str, path: str, local: str) -> None:
    with client(read_settings()) as api, find_sandbox(api, sandbox_id).files.open(path) as pieces:
        if local == HERE:
            sys.stdout.buffer.writelines(pieces)
            sys.stdout.buffer.flush()
            return
        target = Path(local)
        if target.is_dir():
            target /= path.rpartition("/")[2]
        with target.open("wb") as file:
            file.writelines(pieces)


def _put_folder(local: str, sandbox_id: str, path: str) -> None:
    with client(read_settings()) as api:
        files = find_sandbox(api, sandbox_id).files
        if local == HERE:
            files.write_archive(path, _pieces(sys.stdin.buffer))
        else:
            files.upload_folder(local, path)


def _get_folder(sandbox_id: str, path: str, local: str) -> None:
    with client(read_settings()) as api:
        files = find_sandbox(api, sandbox_id).files
        if local != HERE:
            files.download_folder(path, local)
            return
        with files.open_archive(path) as pieces:
            sys.stdout.buffer.writelines(pieces)
            sys.stdout.buffer.flush()


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece
