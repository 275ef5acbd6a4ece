"""The real supervisor keeps to the file of its generation: what it is told, and all that it says.

Here the file alone says how frames are laid out and what they may hold, and a library for JSON
Schema reads it: none of our own decoders.
"""

import asyncio
import json
import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import pytest

from runner.protocol import greeting
from runner.sandbox.drive import Shelf, run, use
from runner.sandbox.guest.channel import Channel, Closed
from runner.words.errors import LaunchFailed, SandboxFault
from runner.words.execution import InputFile, Program
from tests.support.protocol import DOCUMENT
from tests.support.sandboxes import Bench

SUPERVISOR = Path(__file__).parents[3] / "sandbox_images" / "supervisor"
CODES = {1: "c", 4: "I"}


class Spoken(NamedTuple):
    """A frame in the layout that the file describes."""

    header: dict[str, Any]
    payload: bytes


class Wiretap(Channel):
    """Keeps a copy of every byte that passes."""

    taps: list["Wiretap"]

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.heard_bytes, self.told_bytes = bytearray(), bytearray()
        self.taps.append(self)
        feed, write = reader.feed_data, writer.write

        def hear(data: bytes) -> None:
            self.heard_bytes.extend(data)
            feed(data)

        def tell(data: bytes) -> None:
            self.told_bytes.extend(data)
            write(data)

        reader.feed_data = hear  # type: ignore[method-assign,assignment]  # called by this name
        writer.write = tell  # type: ignore[method-assign,assignment]  # as above

    def frames(self, said: bytearray, names: Mapping[str, Any]) -> tuple[Spoken, list[Spoken]]:
        """Return the frame of the first exchange, and those that follow."""
        first, end = _frame(said, 0, DOCUMENT["greeting"])
        _check(json.loads(first.payload), names)
        return first, list(_frames(said, end))


@pytest.fixture
def taps(monkeypatch: pytest.MonkeyPatch) -> list[Wiretap]:
    """Tap the connections of all sandboxes; return the taps."""
    found: list[Wiretap] = []
    monkeypatch.setattr(Wiretap, "taps", found, raising=False)
    monkeypatch.setattr("runner.sandbox.guest.meeting.Channel", Wiretap)
    return found


def _frame(said: bytearray, at: int, layout: dict[str, Any]) -> tuple[Spoken, int]:
    fields = layout["header"]
    code = ">" + "".join(CODES[field["bytes"]] for field in fields)
    values = struct.unpack_from(code, said, at)
    header = dict(zip([field["field"] for field in fields], values, strict=True))
    kind = layout["kinds"][header["kind"].decode()]
    assert kind["shortest"] <= header["length"] <= kind["longest"]
    start = at + struct.calcsize(code)
    end = start + header["length"]
    assert end <= len(said)
    return Spoken(header, bytes(said[start:end])), end


def _frames(said: bytearray, at: int) -> Iterator[Spoken]:
    while at < len(said):
        spoken, at = _frame(said, at, DOCUMENT["frame"])
        yield spoken


def _check(message: dict[str, Any], schemas: Mapping[str, Any]) -> str:
    """Validate a message with the file; return its name."""
    name: str = message.get("say") or message["do"]
    jsonschema_rs.Draft202012Validator(schemas[name]).validate(message)
    return name


def _named(frames: list[Spoken], schemas: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return name and stream of every message, after validating each."""
    return [
        (_check(json.loads(each.payload), schemas), each.header["stream"])
        for each in frames
        if each.header["kind"] == b"C"
    ]


async def live(bench: Bench) -> None:
    """Make one sandbox do everything that it can be told, for three programs."""
    bounds = bench.within(timeout_s=20.0, output_kb=64).bounds
    async with bench.sandbox() as sandbox:
        await sandbox.ping()
        await sandbox.load()
        code = (
            "import os, sys\n"
            "print(sys.stdin.read()); sys.stderr.write('e' * 3_000_000)\n"
            "open('kept', 'w').write('k' * 100_000); os.symlink('kept', 'link')\n"
        )
        files = [InputFile("main.py", code.encode())]
        program = Program(("python3", "main.py"), {"A": "b"}, stdin=b"in", interpret=True)
        shelf = Shelf()
        ran = await use(sandbox, program, bounds, files=files, shelf=shelf, again=True)
        assert (ran.stdout, ran.collected.refused_total) == (b"in\n", 1)
        assert shelf.files == {"kept": b"k" * 100_000}
        assert await sandbox.clean() == []

        missing = Program(("no-such-program",), {})
        ran = await use(sandbox, missing, bounds, again=True)
        assert ran.ending.not_started == "ENOENT"
        assert await sandbox.clean() == []

        await sandbox.prepare()
        await sandbox.ping()
        await run(sandbox, Program(("sleep", "60"), {}), bounds, cancel_after=0.2, grace_s=10)
        await sandbox.collect(max_files=1, max_bytes=1, sink=shelf, again=True)
        assert await sandbox.clean() == []
        twice = InputFile("a", b"1")
        with pytest.raises(SandboxFault, match="EEXIST"):
            await sandbox.upload([twice, twice])


async def test_a_real_supervisor_speaks_and_understands_all_of_its_generation(
    bench: Bench, taps: list[Wiretap]
) -> None:
    """All commands, events and kinds of frames of runs occur, as the file describes them."""
    await live(bench)
    [tap] = taps
    offer, heard = tap.frames(tap.heard_bytes, DOCUMENT["greeting"]["supervisor"])
    answer, told = tap.frames(tap.told_bytes, DOCUMENT["greeting"]["node"])
    assert DOCUMENT["generation"] in json.loads(offer.payload)["generations"]
    assert json.loads(answer.payload)["generation"] == DOCUMENT["generation"]
    events, commands = _named(heard, DOCUMENT["events"]), _named(told, DOCUMENT["commands"])
    assert {name for name, _ in events} == set(DOCUMENT["events"]) - {"living"}
    assert {name for name, _ in commands} == set(DOCUMENT["commands"]) - {"live"}
    kinds = {each.header["kind"].decode() for each in heard + told}
    assert kinds == set(DOCUMENT["frame"]["kinds"]) - {"W"}
    of_sandbox = {"ping", "load", "alive", "loaded"}
    assert all((stream == 0) == (name in of_sandbox) for name, stream in events + commands)
    assert {stream for _, stream in events} == {stream for _, stream in commands} == {0, 1, 2, 3, 4}


async def test_the_program_is_told_as_the_file_says(bench: Bench, taps: list[Wiretap]) -> None:
    """It follows the command in pieces, whose sizes the command gives."""
    argv = ("python3", "-c", "pass", "x" * 100_000)
    await bench.run(argv, env={"A": "b"}, stdin=b"in")
    _, told = taps[0].frames(taps[0].told_bytes, DOCUMENT["greeting"]["node"])
    sizes = json.loads(next(each.payload for each in told if b'"run"' in each.payload[:20]))
    content = b"".join(each.payload for each in told if each.header["kind"] == b"D")
    program, stdin = content[: sizes["program_bytes"]], content[sizes["program_bytes"] :]
    jsonschema_rs.Draft202012Validator(DOCUMENT["program"]).validate(json.loads(program))
    assert json.loads(program)["argv"] == list(argv)
    assert (stdin, sizes["stdin_bytes"]) == (b"in", 2)


async def test_a_supervisor_hangs_up_on_a_generation_that_it_does_not_speak(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This worker is not at fault, and nothing is guessed. The launch may still be running."""
    monkeypatch.setattr(greeting, "agreed", lambda *_: DOCUMENT["generation"] + 1)
    with pytest.raises((Closed, LaunchFailed)):
        async with bench.sandbox() as sandbox:
            await sandbox.ping()


def test_the_constants_of_the_supervisor_are_those_of_the_file() -> None:
    """The host's interpreter reads them from its own modules."""
    ask = (
        "import json, wire, collect, streams, folders, watches; print(json.dumps({"
        "'window': streams.WINDOW, 'overhead': streams.OVERHEAD, 'grant': streams.GRANT.size,"
        "'entries': folders.MAX_ENTRIES, 'changes': watches.MAX_CHANGES, 'long': folders.MAX_NAME,"
        "'longer': watches.MAX_NAME,"
        "'generations': wire.GENERATIONS, 'header': wire.HEADER.format,"
        "'greeting': wire.GREETING.format, 'piece': wire.PIECE, 'control': wire.CONTROL,"
        "'refused': collect.MAX_REFUSED, 'name': collect.MAX_NAME, 'path': collect.MAX_PATH}))"
    )
    asked = subprocess.run(
        ["/usr/bin/python3", "-B", "-c", ask], cwd=SUPERVISOR, capture_output=True, check=True
    )
    refused = DOCUMENT["events"]["collected"]["properties"]["refused"]
    kinds = DOCUMENT["frame"]["kinds"]
    entries = DOCUMENT["living"]["events"]["entries"]
    changes = DOCUMENT["living"]["events"]["changed"]
    assert json.loads(asked.stdout) == {
        "window": DOCUMENT["living"]["window"],
        "overhead": DOCUMENT["living"]["overhead"],
        "grant": kinds["W"]["longest"],
        "entries": entries["properties"]["entries"]["maxItems"],
        "changes": changes["properties"]["changes"]["maxItems"],
        "long": entries["$defs"]["Entry"]["properties"]["path"]["maxLength"],
        "longer": changes["$defs"]["Change"]["properties"]["path"]["maxLength"],
        "generations": [DOCUMENT["generation"]],
        "header": _code(DOCUMENT["frame"]),
        "greeting": _code(DOCUMENT["greeting"]),
        "piece": kinds["D"]["longest"],
        "control": kinds["C"]["longest"],
        "refused": refused["maxItems"],
        "name": refused["items"]["prefixItems"][0]["maxLength"],
        "path": DOCUMENT["events"]["artifact"]["properties"]["path"]["maxLength"],
    }
    assert kinds["D"]["longest"] == kinds["O"]["longest"] == kinds["E"]["longest"]


def _code(layout: dict[str, Any]) -> str:
    return ">" + "".join(CODES[field["bytes"]] for field in layout["header"])
