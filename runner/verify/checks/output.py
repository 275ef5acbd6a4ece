"""Traps that a program leaves behind: files that are not what they seem, a hostile supervisor."""

from runner.protocol import events
from runner.sandbox.drive import Shelf
from runner.verify.bench import Bench
from runner.verify.check import Check, Group, Observation, Severity
from runner.verify.controls import Change, supervisor
from runner.verify.trial import Attempt, Trial
from runner.words.errors import ProtocolViolation

_CREDULOUS = """
import os, collect as collecting
def hand_back(self, folder, path, depth, places, *, in_tools):
    name = path.rpartition("/")[2]
    try: file = os.open(name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=folder)
    except OSError: return "unreadable"
    data = os.read(file, 4096) if not os.path.isdir(name) else b""
    os.close(file)
    self.wire.say("artifact", path=path, size=len(data) or 1)
    self.wire.send(b"D", data or b"x")
collecting.Collector._visit = hand_back
"""


def _leaving(code: str, wanted: str) -> Attempt:
    """Return an attempt to have a file collected that is not the program's own."""

    async def attempt(bench: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        changes: tuple[Change, ...] = () if guarded else (supervisor(_CREDULOUS),)
        async with bench.execution(*changes) as sandbox:
            await bench.run(sandbox, f"import os, socket\n{code}")
            shelf = Shelf()
            collected = await sandbox.collect(max_files=8, max_bytes=2**20, sink=shelf)
        if wanted in shelf.files:
            return Observation(breached=True, saw="taken")
        return Observation(breached=False, saw=", ".join(collected.refused))

    return attempt


_SEEMING: tuple[Check, ...] = tuple(
    Trial(
        id=f"output.{id_}",
        group=Group.OUTPUT,
        severity=Severity.CRITICAL,
        title=title,
        meaning=meaning,
        source=source,
        control="the supervisor's check of each file",
        attempt=_leaving(code, "x"),
    )
    for id_, title, meaning, source, code in (
        ("symlink", "A symbolic link is not followed", "files outside the workspace could be fetched",
         "CVE-2024-28185", "os.symlink('/etc/passwd', 'x')"),
        ("symlink-proc", "A link into /proc is not followed", "the supervisor's secrets could be fetched",
         "CVE-2018-15664", "os.symlink('/proc/self/status', 'x')"),
        ("hard-link", "A file with two names is not collected", "a file could be changed after the check",
         "CVE-2024-28185", "open('y', 'w').write('y'); os.link('y', 'x')"),
        ("fifo", "A pipe is not read", "the collection could be held up for ever",
         "Judge0 write-up, 2024", "os.mkfifo('x')"),
        ("sparse", "A sparse file beyond the bound is not collected",
         "a terabyte of zeros would be stored", "tar sparse file bombs",
         "f = open('x', 'wb'); f.truncate(2**20 + 1); f.close()"),
    )
)  # fmt: skip


def _named(path: str) -> Attempt:
    """Return an attempt by a hostile supervisor to return a file of this name."""
    hostile = (
        "import collect as collecting\n"
        "def collect(self):\n"
        f"    self.wire.say('artifact', path={path!r}, size=1)\n"
        "    self.wire.send(b'D', b'x')\n"
        "    self.wire.say('collected', refused=[], refused_total=0)\n"
        "collecting.Collector.collect = collect\n"
    )

    async def attempt(bench: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        shelf = Shelf()
        checking = events.check_path  # The one control, taken away and put back.
        async with bench.execution(supervisor(hostile)) as sandbox:
            await bench.run(sandbox, "pass")
            if not guarded:
                setattr(events, "check_path", lambda _: None)  # noqa: B010 - mypy knows it as a function
            try:
                await sandbox.collect(max_files=8, max_bytes=2**20, sink=shelf)
            except ProtocolViolation:
                return Observation(breached=False, saw="ProtocolViolation")
            finally:
                events.check_path = checking
        return Observation(breached=path in shelf.files, saw=f"a file called {path!r}")

    return attempt


_NAMES: tuple[Check, ...] = tuple(
    Trial(
        id=f"output.name.{id_}",
        group=Group.OUTPUT,
        severity=Severity.CRITICAL,
        title=f"A file called {path!r} is refused",
        meaning="files could be stored in another place",
        source="CVE-2024-28185, CVE-2018-15664",
        control="the worker's check of each name",
        attempt=_named(path),
    )
    for id_, path in (
        ("parent", "../x"),
        ("parent-inside", "a/../../x"),
        ("absolute", "/etc/x"),
        ("dot", "./x"),
        ("empty-part", "a//x"),
        ("newline", "a\nb"),
        ("escape", "\x1b[2J"),
        ("nul", "a\x00b"),
    )
)

CHECKS: tuple[Check, ...] = (*_SEEMING, *_NAMES)
