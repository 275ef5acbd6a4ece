"""PID 1 of a sandbox that lives: many processes, files and ports at once, in one loop.

It has one thread. Only the loop waits, so no program and no client holds up another. If the node
goes away, processes go on and their output is kept. Everything else under way is dropped, and this
end tries to connect again until a node answers.
"""

from __future__ import annotations

import contextlib
import json

from archives import Pack, Unpack
from attached import attach
from bridge import trust
from bridging import LastingBridge
from dials import Dial
from filing import Read, Write
from folders import List, MakeFolder, Move, Remove, Stat
from loop import IN, OUT, Loop
from places import Places
from process import Process
from processes import trim
from programs import Programs
from returning import Return
from spawning import Spawner
from streams import GRANT, Link, Streams
from watches import Watch
from wire import Disconnected

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from collections.abc import Iterator
    from typing import Any, NoReturn

    from sockets import Socket
    from wire import Wire

TIDY_S = 5.0
"""How long after the last event unused memory is given back."""
FILING = {
    "read": Read,
    "write": Write,
    "list": List,
    "stat": Stat,
    "make_folder": MakeFolder,
    "move": Move,
    "remove": Remove,
}
ARCHIVES = {"pack": Pack, "unpack": Unpack}


class Living:
    """A sandbox that lives: its connection, its streams, its programs."""

    def __init__(self, wire: Wire, children: Socket, command: dict[str, Any]) -> None:
        if command["trust"]:
            trust(command["trust"])
        self._secret: str = command["secret"]
        self._alone_s: int = command["alone_s"]
        self._children = children
        self._loop = Loop()
        self._places = Places()
        self._programs = Programs(self._loop, Spawner())
        if command["egress"]:
            LastingBridge(self._loop)
        self._loop.watch(children.fileno(), IN, self._reap)
        wire.say("living")
        self._next = 1
        """The lowest number that no stream has had yet."""
        self._home = True
        self._link = Link(wire.socket)
        self._streams = Streams(self._link)
        # Not now: somebody waits for the first command.
        self._tidies = True
        self._loop.after(TIDY_S, self._tidy)
        self._listen()

    def live(self) -> NoReturn:
        """Run the loop for ever."""
        while True:
            if self._loop.wait(busy=self._streams.busy) and not self._tidies:
                self._tidies = True
                self._loop.after(TIDY_S, self._tidy)
            self._streams.advance()
            if self._home and self._link.waiting:
                self._send()

    def _tidy(self) -> None:
        self._tidies = False
        trim()

    # ---- The connection --------------------------------------------------------------------------

    def _listen(self) -> None:
        events = IN | (OUT if self._link.waiting else 0)
        self._loop.watch(self._link.socket.fileno(), events, self._talk)

    def _send(self) -> None:
        try:
            self._link.flush()
        except OSError:
            self._leave()
        else:
            self._listen()

    def _talk(self, events: int) -> None:
        if not events & ~OUT:
            return  # there is room again: this turn ends by sending
        try:
            for kind, stream, payload in self._link.receive():
                self._hear(kind, stream, payload)
        except (Disconnected, ConnectionError):
            self._leave()

    def _leave(self) -> None:
        """Go on without a node, and look for one."""
        self._home = False
        self._loop.ignore(self._link.socket.fileno())
        self._streams.hang_up()
        Return(self._loop, self._secret, self._alone_s, self._meet)

    def _meet(self, link: Link) -> None:
        self._home = True
        self._link = link
        self._streams.meet(link)
        self._listen()

    # ---- What the node says ----------------------------------------------------------------------

    def _hear(self, kind: bytes, number: int, payload: bytes) -> None:
        if kind == b"C":
            self._obey(number, json.loads(payload))
        elif kind == b"W":
            self._streams.grant(number, *GRANT.unpack(payload))
        elif kind != b"D":
            raise ValueError(f"a frame of the unknown kind {kind!r}")
        elif (stream := self._streams.open.get(number)) is not None:
            stream.take(payload)

    def _obey(self, number: int, command: dict[str, Any]) -> None:
        if number == 0:
            self._answer(command)
        elif (stream := self._streams.open.get(number)) is not None:
            if command["do"] == "cancel":
                stream.cancel()
            else:
                stream.obey(command)
        elif number >= self._next:
            self._next = number + 1
            self._open(number, command)
        # Any other stream has ended: the node sent this before it knew.

    def _answer(self, command: dict[str, Any]) -> None:
        if command["do"] == "ping":
            self._streams.say(0, "alive")
        elif command["do"] == "processes":
            for process in self._known():
                self._streams.say(0, "process", **process.facts())
            self._streams.say(0, "processes", next_stream=self._next)
        else:
            raise ValueError(f"{command['do']} has no place on stream 0")

    def _known(self) -> Iterator[Process]:
        """Yield every process that was not forgotten."""
        return (each for each in self._streams.open.values() if isinstance(each, Process))

    def _open(self, number: int, command: dict[str, Any]) -> None:
        do, streams = command["do"], self._streams
        if do == "start":
            streams.add(Process(streams, number, command, self._programs))
        elif do == "attach":
            process = streams.open.get(command["process"])
            found = process if isinstance(process, Process) else None
            attach(streams, number, found, command["offset"], follow=command["follow"])
        elif do == "watch":
            streams.add(Watch(streams, number, self._places, self._loop, command))
        elif do in ARCHIVES:
            streams.add(ARCHIVES[do](streams, number, self._places, self._programs, command))
        elif do == "dial":
            streams.add(Dial(streams, number, self._loop, command))
        else:
            streams.add(FILING[do](streams, number, self._places, command))

    # ---- Processes that have ended ---------------------------------------------------------------

    def _reap(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._children.recv(4096):
                pass
        self._programs.reap()
