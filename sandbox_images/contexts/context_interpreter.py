"""The interpreter of a code context: its process, its pipes, and what it writes and reports."""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import re
import secrets
import signal
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
CONTROL_IN, CONTROL_OUT = 3, 4
ABOVE = 16
PIECE = 32 * 1024
"""How much output goes into one line."""
LONGEST = 512 * 1024
"""A longer line of the interpreter is none of ours, and is dropped."""
FIONREAD = 0x541B
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
COMMANDS = {
    "python": ["/usr/bin/python3", f"{HERE}/python_shell.py"],
    "javascript": ["node", "--no-warnings", f"{HERE}/javascript.mjs"],
    "bash": ["bash", "--norc", "--noprofile", "--noediting", "-i"],
}


class Outlet:
    """Bytes that are still to be written to a pipe that may be full."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.pending = bytearray()
        os.set_blocking(fd, False)

    def write(self) -> None:
        """Write what the pipe takes. Raises OSError if nobody reads it."""
        while self.pending:
            try:
                with memoryview(self.pending) as view, view[: 16 * PIECE] as piece:
                    size = os.write(self.fd, piece)
            except BlockingIOError:
                return
            del self.pending[:size]


class Interpreter:
    """The interpreter's process, and the ends of its pipes."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.token = secrets.token_hex(16)
        ours: list[int] = []
        theirs: list[int] = []
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        for target in (1, 2, CONTROL_OUT):
            source, sink = pipe()
            ours.append(source)
            theirs.append(sink)
            actions.append((os.POSIX_SPAWN_DUP2, sink, target))
        source, sink = pipe()
        theirs.append(source)
        # A shell reads its commands from stdin.
        actions.append((os.POSIX_SPAWN_DUP2, source, 0 if language == "bash" else CONTROL_IN))
        self.commands = Outlet(sink)
        self.pid = os.posix_spawnp(
            COMMANDS[language][0],
            COMMANDS[language],
            environment(language),
            file_actions=actions,
            setsigmask=(),
            setsigdef=(signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ),
        )
        for fd in theirs:
            os.close(fd)
        self.reading = set(ours)
        """The ends that may still bring something."""
        self.ready = False
        self.ended = False
        """Whether it has ended a run since somebody looked."""
        self._outputs = {ours[0]: "stdout", ours[1]: "stderr"}
        self._reports = bytearray()
        self._dropping = False
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {fd: decoder("replace") for fd in self._outputs}
        self._number = 0
        self._all = (*ours, sink)
        for fd in ours:
            os.set_blocking(fd, False)
        if language == "bash":
            self.commands.pending += b"set +m +H +o history; unset PS1 PS2 PROMPT_COMMAND\n"
            self.commands.pending += b"printf '%s 0\\n' " + self.token.encode() + b" >&4\n"
        else:
            self.commands.pending += self.token.encode() + b"\n"

    def run(self, number: int, code: str, env: dict[str, str]) -> None:
        """Have it run code."""
        self._number = number
        if self.language == "bash":
            self.commands.pending += shell_lines(self.token, code, env)
        else:
            line = json.dumps({"run": number, "code": code, "env": env})
            self.commands.pending += line.encode() + b"\n"

    def interrupt(self, number: int) -> None:
        """Signal it and its children. Node cannot be interrupted by a signal alone."""
        if self.language == "javascript":
            self.commands.pending += json.dumps({"interrupt": number}).encode() + b"\n"
        os.killpg(0, signal.SIGINT)

    def attend(self, fd: int, say: Callable[..., None]) -> None:
        """Pass on what has come from it."""
        try:
            data = os.read(fd, PIECE if fd in self._outputs else 8 * PIECE)
        except BlockingIOError:
            return
        if not data:
            self.reading.discard(fd)
        if fd in self._outputs:
            self._tell_output(fd, self._decoders[fd].decode(data, final=not data), say)
        else:
            self._take(data, say)

    def catch_up(self, say: Callable[..., None]) -> None:
        """Pass on what is in the pipes now: it was written before what is about to be told."""
        for fd in self._outputs:
            size = struct.unpack("i", fcntl.ioctl(fd, FIONREAD, b"\0" * 4))[0]
            while size > 0 and (data := os.read(fd, min(size, PIECE))):
                size -= len(data)
                self._tell_output(fd, self._decoders[fd].decode(data), say)

    def close(self) -> None:
        """Close its pipes."""
        for fd in self._all:
            os.close(fd)

    def _tell_output(self, fd: int, text: str, say: Callable[..., None]) -> None:
        if text and self.ready:
            say("output", of=self._outputs[fd], text=text)

    def _take(self, data: bytes, say: Callable[..., None]) -> None:
        """Take reports."""
        self._reports += data
        *lines, rest = self._reports.split(b"\n")
        self._reports = bytearray(rest)
        if lines:
            self.catch_up(say)
        for line in lines:
            if not self._dropping:
                self._report(bytes(line), say)
            self._dropping = False
        if len(self._reports) > LONGEST:
            self._reports.clear()
            self._dropping = True

    def _report(self, line: bytes, say: Callable[..., None]) -> None:
        """Pass on a report, if it is one."""
        token, _, rest = line.partition(b" ")
        if not secrets.compare_digest(token, self.token.encode()):
            return
        if self.language == "bash":
            status = int(rest) if rest.isdigit() else 1
            report: dict[str, Any] = {"say": "ended", "count": self._number, "exit_code": status}
        else:
            report = json.loads(rest)
        what = report.pop("say")
        if what == "unavailable":
            say("unavailable", detail=report["detail"])
        elif not self.ready:
            self.ready = True
            say("ready")
        else:
            self.ended = self.ended or what == "ended"
            say(what, **report)


def pipe() -> list[int]:
    """Return both ends of a pipe, above the numbers that a child gives its own."""
    ends = os.pipe()
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE) for fd in ends]
    for fd in ends:
        os.close(fd)
    return moved


def environment(language: str) -> dict[str, str]:
    """Return the interpreter's environment: this process's own, and what it needs itself."""
    if language == "bash":
        return {**os.environ, "PS1": "", "PS2": ""}
    if language == "javascript":
        return {"NODE_PATH": "/usr/share/nodejs:/usr/lib/node_modules", **os.environ}
    return dict(os.environ)


def shell_lines(token: str, code: str, env: dict[str, str]) -> bytes:
    """Return the lines that have a shell run code, with variables that last as long as the run.

    A shell that reads its commands goes on with the next line after an interrupt.
    """
    names = [name for name in env if NAME.fullmatch(name)]
    before = [
        f"__had_{name}=${{{name}+x}} __was_{name}=${{{name}-}}; export {name}={quoted(env[name])}"
        for name in names
    ]
    after = [
        f'if [ "$__had_{name}" ]; then {name}=$__was_{name}; else unset {name}; fi; '
        f"unset __had_{name} __was_{name}"
        for name in names
    ]
    lines = [
        *before,
        f"eval {quoted(code)} </dev/null 4>&-",
        "__status=$?",
        *after,
        f"builtin printf '%s %s\\n' {token} \"$__status\" >&4",
    ]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def quoted(text: str) -> str:
    """Return the text as one word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"
