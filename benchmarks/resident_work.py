"""The work in one living sandbox during a soak, and the proof that nothing of it was lost.

All output is a function of its offset, so a byte that is missing, doubled or another's is seen at
once. A call that failed because the node was away may have been done or not: both are right, but
nothing in between.
"""

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agent_runner import ApiError, Client, Conflict, OutputEvent, Process, Unavailable

LINE = 8
BLOCK = 200
WRITER = f"""
import select, sys
n = 0
while not select.select([0], [], [], float(sys.argv[1]))[0]:
    sys.stdout.write(''.join('%07d\\n' % (n + i) for i in range({BLOCK})))
    sys.stdout.flush()
    n += {BLOCK}
"""
"""Writes lines of numbers, at a time of so many seconds, until its stdin is closed."""
PATIENCE_S = 90.0
PAUSE_S = 0.3
FILES = 4
MOST_BYTES = 64 * 1024
KEEPS_KB = (1024, 16)
"""Those that keep less lose output while nobody listens, and must say so."""

T = TypeVar("T")


def expected(offset: int, length: int) -> bytes:
    """Return what WRITER writes there."""
    first, last = offset // LINE, -(-(offset + length) // LINE)
    lines = b"".join(b"%07d\n" % number for number in range(first, last))
    start = offset - first * LINE
    return lines[start : start + length]


@dataclass
class Findings:
    """The work and the findings of all threads of a soak."""

    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str, times: int = 1) -> None:
        """Count something."""
        with self._lock:
            self.counts[what] += times


class Followed:
    """A stream of output that is read to its end, whatever breaks in between."""

    def __init__(self, name: str, findings: Findings) -> None:
        self.offset = 0
        self.ended = False
        self._name = name
        self._findings = findings

    def take(self, event: OutputEvent) -> None:
        """Take the next event. It must begin where the last one ended."""
        size = len(event.raw) + event.omitted_bytes
        if event.next_offset - size != self.offset:
            self._findings.wrong.append(
                f"{self._name}: {event.kind} at {event.next_offset - size} after {self.offset}"
            )
        if event.omitted_bytes:
            self._findings.count("bytes of output told as lost", event.omitted_bytes)
        self.offset = event.next_offset
        self.ended = event.kind == "ended"
        self._findings.count("bytes of output received", len(event.raw))


class SandboxWork:
    """One sandbox: its threads call `work` and `follow`, then `settle` and `end`."""

    def __init__(
        self,
        client: Client,
        number: int,
        findings: Findings,
        over: threading.Event,
        *,
        every_s: float = 1.0,
    ) -> None:
        """Do something every `every_s` seconds, and write as often."""
        self.findings = findings
        self._client = client
        self._number = number
        self._over = over
        self._every_s = every_s
        self._random = random.Random(number)  # noqa: S311 - no secret
        self._files: dict[str, set[str]] = {}
        """By path, the digests of what may be in it."""
        self._told = Followed(f"{self} writer", findings)
        self._typed = Followed(f"{self} terminal", findings)

    def __str__(self) -> str:
        return f"sandbox {self._number}"

    def begin(self) -> None:
        """Create the sandbox and its two lasting processes."""
        self._sandbox = self.insist(
            lambda: self._client.sandboxes.create(size="nano", timeout_s=None)
        )
        keep_kb = KEEPS_KB[self._number % 3 == 0]
        self._writer = self._started(
            "writer",
            ["python3", "-c", WRITER, str(self._every_s)],
            keep_stdin_open=True,
            keep_kb=keep_kb,
        )
        self._shell = self._started(
            "shell", ["sh"], terminal={"rows": 24, "columns": 80}, env={"PS1": ""}
        )
        self.findings.count("sandboxes")

    def _started(self, tag: str, command: list[str], **options: Any) -> Process:
        """Start a process once, however often the answer is lost."""

        def start() -> Process:
            for each in self._sandbox.processes():
                if each.tag == tag:
                    return self._sandbox.process(each.process)
            return self._sandbox.start(command, tag=tag, **options)

        return self.insist(start)

    def answers(self) -> bool:
        """Return whether its node answers for it; that it is paused is an answer."""
        try:
            self._sandbox.processes()
        except Conflict:
            return True
        except ApiError:
            return False
        return True

    def insist(self, call: Callable[[], T]) -> T:
        """Return what a call returns that may be repeated, once the node is there again."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return call()
            except Unavailable:
                self.findings.count("calls while the node was away")
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)

    def work(self) -> None:
        """Do one thing after another until the soak is over."""
        things = (self._command, self._file, self._command, self._type, self._pause)
        turn = self._number
        while not self._over.is_set():
            try:
                things[turn % len(things)]()
            except ApiError as error:
                name = things[turn % len(things)].__name__
                self.findings.wrong.append(f"{self} {name}: {type(error).__name__}: {error}")
            turn += 1
            self._over.wait(self._every_s * self._random.uniform(0.5, 1.5))

    def follow(self) -> None:
        """Read what the writer writes, to its end."""
        for event in self._events(self._writer, self._told):
            if event.raw and event.raw != expected(
                event.next_offset - len(event.raw), len(event.raw)
            ):
                self.findings.wrong.append(f"{self}: other bytes before {event.next_offset}")

    def _events(self, process: Process, followed: Followed) -> Iterator[OutputEvent]:
        until = time.monotonic() + PATIENCE_S
        while not followed.ended:
            try:
                for event in process.output(offset=followed.offset):
                    until = time.monotonic() + PATIENCE_S
                    followed.take(event)
                    yield event
            except (Conflict, Unavailable) as error:
                # A paused sandbox tells nothing; what its processes wrote comes after the pause.
                paused = isinstance(error, Conflict)
                self.findings.count("streams refused in a pause" if paused else "streams broken")
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    # ---- What comes and goes -----------------------------------------------------------------

    def _command(self) -> None:
        token = f"{self._random.getrandbits(64):016x}"
        lines = self._random.randrange(1, 500)
        wanted = "".join(f"{token} {number}\n" for number in range(1, lines + 1)).encode()
        script = f"for i in $(seq {lines}); do echo {token} $i; done"
        try:
            ran = self._sandbox.run(["sh", "-c", script], tag=token)
            code, got = ran.exit_code, ran.stdout.raw
        except Unavailable:
            # Nobody knows whether it was started. If it was, nothing of it may be missing.
            self.findings.count("commands whose start was in doubt")
            known = self.insist(self._sandbox.processes)
            found = [each for each in known if each.tag == token]
            if not found:
                return
            process = self.insist(lambda: self._sandbox.process(found[0].process))
            followed = Followed(f"{self} command", self.findings)
            got = b"".join(event.raw for event in self._events(process, followed))
            code = self.insist(process.refresh).exit_code
            self.findings.count("commands found again")
        self.findings.count("commands")
        if (code, got) != (0, wanted):
            self.findings.wrong.append(
                f"{self}: a command ended with {code} and {len(got)} bytes of {len(wanted)}"
            )

    def _file(self) -> None:
        path = f"file-{self._random.randrange(FILES)}"
        content = self._random.randbytes(self._random.randrange(1, MOST_BYTES))
        digest = hashlib.sha256(content).hexdigest()
        before = self._files.get(path, {""})
        # While it is not known to be there, the file is the old one or the new one, whole.
        self._files[path] = {*before, digest}
        with suppress(Unavailable):
            self._sandbox.files.write(path, content)
            self._files[path] = {digest}
        self._check(path)
        self.findings.count("files written and read")

    def _check(self, path: str) -> None:
        if "" in self._files[path] and not self.insist(lambda: self._sandbox.files.exists(path)):
            return
        found = hashlib.sha256(self.insist(lambda: self._sandbox.files.read(path))).hexdigest()
        if found not in self._files[path]:
            self.findings.wrong.append(f"{self}: {path} holds something else")
        self._files[path] = {found}

    def _type(self) -> None:
        number = self._random.randrange(10**6, 10**7)
        try:
            with self._shell.terminal(offset=self._typed.offset) as terminal:
                terminal.send(b"echo $((%d * 7))\n" % number)
                wanted, got = b"\n%d\r" % (number * 7), b""
                for event in terminal:
                    self._typed.take(event)
                    got = got[-4096:] + event.raw
                    if wanted in got:
                        break
        except Unavailable:
            # What was typed may be lost; what the terminal wrote may not.
            self.findings.count("terminals that broke")
            return
        self.findings.count("lines typed and answered")

    def _pause(self) -> None:
        paused = self.insist(self._sandbox.pause)
        if paused.state != "paused":
            self.findings.wrong.append(f"{self} is {paused.state} after a pause")
        time.sleep(PAUSE_S)
        self.insist(self._sandbox.resume)
        self.findings.count("pauses")

    # ---- The end -----------------------------------------------------------------------------

    def settle(self) -> None:
        """Let its processes end, and look whether anything is missing."""
        try:
            info = self.insist(self._sandbox.refresh)
            if info.state != "running":
                self.findings.wrong.append(f"{self} is {info.state}, {info.reason}")
            for path in self._files:
                self._check(path)
            self.insist(self._writer.close_stdin)
            self.insist(lambda: self._shell.signal("SIGKILL"))
            for _ in self._events(self._shell, self._typed):
                pass
            for process, followed in ((self._writer, self._told), (self._shell, self._typed)):
                self._whole(process, followed)
        except ApiError as error:
            self.findings.wrong.append(f"{self} at the end: {type(error).__name__}: {error}")

    def _whole(self, process: Process, followed: Followed) -> None:
        until = time.monotonic() + PATIENCE_S
        while not followed.ended and time.monotonic() < until:
            time.sleep(0.1)
        wrote = self.insist(process.refresh).output_bytes
        if not followed.ended or wrote != followed.offset:
            self.findings.wrong.append(
                f"{self} process {process.number}: {followed.offset} bytes came of {wrote}"
            )

    def end(self) -> None:
        """Kill it."""
        self.insist(self._sandbox.kill)
