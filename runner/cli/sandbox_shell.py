"""`runner sandbox shell`: a terminal to live in, inside a sandbox."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Condition, Thread
from types import TracebackType
from typing import Annotated, Any, Self

import typer

from agent_runner import ApiError, OutputEvent, Process, Sandbox, Terminal, Unavailable
from agent_runner.types import omission
from runner.cli.console import err, fail, read_settings, reports_errors
from runner.cli.ids import find_sandbox
from runner.cli.run import EX_SOFTWARE, Interrupted, Interruption, pairs
from runner.cli.sandbox_use import exit_code
from runner.cli.session import client

PIECE = 4096
LIVES_S = 300.0
"""How long a sandbox that was made for a shell outlives a command that was cut off."""
EXTEND_S = 60.0
REOPEN_S = 15.0
"""How long a lost connection is tried to be opened again."""
REOPEN_EVERY_S = 0.5
JOIN_S = 1.0
MAX_SIDE = 1000
AS_IT_WAS = (
    b"\x1b[?1047l\x1b[?25h\x1b[?2004l\x1b[?1l\x1b>"
    b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[0m\r\n"
)
"""Undoes the state of a killed program: the other screen, no cursor, a mouse."""


@reports_errors
def shell(
    sandbox_id: Annotated[
        str | None,
        typer.Argument(
            metavar="ID", help="The sandbox; by default, a new one, which is killed afterwards."
        ),
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND…", help="A program to run in place of bash; it needs an ID before it."
        ),
    ] = None,
    image: Annotated[str | None, typer.Option(help="The image of a sandbox that is made.")] = None,
    size: Annotated[
        str | None, typer.Option(help="The size of a sandbox that is made; by default small.")
    ] = None,
    egress: Annotated[
        list[str] | None, typer.Option(help="What a sandbox that is made may reach; repeatable.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable; repeatable."),
    ] = None,
    cwd: Annotated[str | None, typer.Option("--cwd", "-w", help="The folder it starts in.")] = None,
) -> None:
    """Work in a sandbox as in a terminal: every key goes inside, Ctrl-C and Ctrl-Z, too.

    The exit code is the shell's. Without ID, a sandbox is made for it and killed at the end. A lost
    connection is opened again where it broke off.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        fail("this is for a terminal; in a script or a pipe, use `runner sandbox exec`")
    ended: OutputEvent | None = None
    with Interruption() as interruption, client(read_settings()) as api, ExitStack() as stack:
        made: Sandbox | None = None
        if sandbox_id is None:
            wanted: dict[str, Any] = {
                "image": image,
                "egress": list(egress or ()),
                **({} if size is None else {"size": size}),
            }
            with err.status("making a sandbox"):
                made = stack.enter_context(api.sandboxes.create(timeout_s=LIVES_S, **wanted))
        lived_in = made or find_sandbox(api, str(sandbox_id))
        rows, columns = window()
        process = lived_in.start(
            list(command or ("bash",)),
            terminal={"rows": rows, "columns": columns},
            env=pairs("-e", env or ()),
            cwd=cwd,
        )
        try:
            interruption.await_()
            ended = live_in(process, made)
        except Interrupted:
            raise typer.Exit(interruption.exit_code or EX_SOFTWARE) from None
        finally:
            if ended is None:
                # As of a terminal that is closed.
                with suppress(ApiError):
                    process.signal("SIGHUP")
    raise typer.Exit(exit_code(ended))


def live_in(process: Process, made: Sandbox | None) -> OutputEvent:
    """Be a process's terminal until it has ended, and return how; leave the real one as it was."""
    with raw(sys.stdin.fileno()), process.terminal() as first:
        over = False
        try:
            with Keyboard(first, _extending(made)) as keyboard:
                ended = _shown(process, first, keyboard)
            over = True
        finally:
            if not over:
                _show(AS_IT_WAS)
    return ended


def _shown(process: Process, terminal: Terminal, keyboard: "Keyboard") -> OutputEvent:
    """Show what a process writes until it has ended; a lost connection is opened once more."""
    opened = float("-inf")
    while True:
        try:
            for event in terminal:
                if event.kind == "ended":
                    return event
                lost = event.kind == "gap"
                _show(f"\r\n{omission(event.omitted_bytes)}\r\n".encode() if lost else event.raw)
        except Unavailable:
            if time.monotonic() - opened < REOPEN_S:
                # It was opened again just now, and that was once.
                raise
        terminal.close()
        terminal = _reopened(process, terminal.offset)
        opened = time.monotonic()
        keyboard.goes_to(terminal)


def _reopened(process: Process, offset: int) -> Terminal:
    until = time.monotonic() + REOPEN_S
    while True:
        try:
            return process.terminal(offset=offset)
        except Unavailable:
            if time.monotonic() >= until:
                raise
            time.sleep(REOPEN_EVERY_S)


class Keyboard:
    """Passes on what is typed, and the window's size, to whatever terminal is open."""

    def __init__(self, terminal: Terminal, extend: Callable[[], None]) -> None:
        self._terminal = terminal
        self._extend = extend
        self._changed = Condition()
        self._over = False
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._thread = Thread(target=self._pass_on, daemon=True)
        self._before: Any = None

    def __enter__(self) -> Self:
        # A handler may not send: what it interrupts may be sending. It wakes the thread up.
        self._before = signal.signal(signal.SIGWINCH, lambda *_: self._wake_up())
        self._thread.start()
        self._wake_up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGWINCH, self._before)
        with self._changed:
            self._over = True
            self._changed.notify()
        self._wake_up()
        self._terminal.close()
        self._thread.join(JOIN_S)

    def goes_to(self, terminal: Terminal) -> None:
        """Pass on to another terminal from now on."""
        with self._changed:
            self._terminal = terminal
            self._changed.notify()
        self._wake_up()

    def _wake_up(self) -> None:
        # Full, it wakes up all the same.
        with suppress(BlockingIOError):
            os.write(self._wake, b"w")

    def _pass_on(self) -> None:
        typed, extended = sys.stdin.fileno(), time.monotonic()
        while True:
            ready, _, _ = select.select([typed, self._woken], [], [], EXTEND_S)
            if self._over:
                return
            if time.monotonic() - extended >= EXTEND_S:
                extended = time.monotonic()
                self._extend()
            if self._woken in ready:
                os.read(self._woken, PIECE)
                self._say(None)
            if typed in ready:
                keys = _read(typed)
                if not keys:
                    return
                self._say(keys)

    def _say(self, keys: bytes | None) -> None:
        """Send keys, or the window's size, to the terminal that is open, or to the next one."""
        while not self._over:
            terminal = self._terminal
            try:
                if keys is None:
                    terminal.resize(*window())
                else:
                    terminal.send(keys)
            except ApiError:
                with self._changed:
                    while self._terminal is terminal and not self._over:
                        self._changed.wait()
            else:
                return


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Let every key through as it is, and put the terminal back afterwards, whatever happens."""
    before = termios.tcgetattr(descriptor)
    try:
        # What was typed ahead is kept.
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        # A terminal that is gone needs nothing.
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def window() -> tuple[int, int]:
    """Return rows and columns of this terminal."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        size = os.terminal_size((0, 0))
    return min(size.lines or 24, MAX_SIDE), min(size.columns or 80, MAX_SIDE)


def _extending(made: Sandbox | None) -> Callable[[], None]:
    """Return what keeps a sandbox that was made for this shell alive."""

    def extend() -> None:
        if made is not None:
            with suppress(ApiError):
                made.update(timeout_s=LIVES_S)

    return extend


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, PIECE)
    except OSError:
        return b""


def _show(content: bytes) -> None:
    with suppress(OSError):
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
