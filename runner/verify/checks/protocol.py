"""What a hostile program behind the supervisor's socket says, and what a trusting reader would do.

The bytes go over a real pair of sockets into the reader that the worker uses; without the control
into one that believes what it is told. Whole hostile supervisors in real containers are played by
the tests of `tests/security`.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Callable

from runner.protocol.messages import Ended, Ready, Started, parse
from runner.sandbox.guest.channel import Channel, Closed
from runner.verify.bench import Bench
from runner.verify.check import Check, Group, Observation, Severity
from runner.verify.trial import Attempt, Trial
from runner.words.errors import ProtocolViolation

_PATIENCE_S = 0.3


def _frame(kind: bytes, payload: bytes, claimed: int | None = None) -> bytes:
    return struct.pack(">cI", kind, len(payload) if claimed is None else claimed) + payload


def _report(text: bytes) -> bytes:
    return _frame(b"C", text)


def _said(name: str, **facts: object) -> bytes:
    return _report(json.dumps({"say": name, **facts}).encode())


_ENDED = {"exit_code": 0, "signal": None, "stdout": 0, "stderr": 0, "disk_full": False}


async def _read_strictly(data: bytes) -> str:
    """Read as the worker does; return what it took for said."""
    ours, theirs = socket.socketpair()
    _, sender = await asyncio.open_unix_connection(sock=theirs)
    # What the reader does not want stays in the sender's buffer.
    sender.write(data)
    sender.write_eof()
    channel = Channel(*await asyncio.open_unix_connection(sock=ours))
    try:
        async with asyncio.timeout(_PATIENCE_S):
            said = await channel.read()
    finally:
        channel.close()
        sender.transport.abort()
    return type(said).__name__


async def _read_trustingly(data: bytes) -> str:
    """Read as a reader without bounds or types does."""
    kind, length = struct.unpack(">cI", data[:5])
    payload = data[5:]
    if length > len(payload):
        # It would set so much memory aside, and wait.
        return f"{length} bytes awaited"
    return f"{json.loads(payload)}"[:60] if kind == b"C" else f"{length} bytes taken"


def _frames(data: bytes) -> Attempt:
    async def attempt(_: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        try:
            saw = await (_read_strictly(data) if guarded else _read_trustingly(data))
        except (Closed, ProtocolViolation) as error:
            return Observation(breached=False, saw=type(error).__name__)
        return Observation(breached=True, saw=saw)

    return attempt


_FRAMES: tuple[Check, ...] = tuple(
    Trial(
        id=f"protocol.{id_}",
        group=Group.PROTOCOL,
        severity=Severity.CRITICAL,
        title=title,
        meaning=meaning,
        source=source,
        control=control,
        attempt=_frames(data),
    )
    for id_, title, data, control, meaning, source in (
        ("giant", "A frame of 4 GB is refused by its head", _frame(b"C", b"", 2**32 - 1),
         "the bound on a frame", "the worker's memory could be filled", "CWE-770"),
        ("large-piece", "A piece above 64 KiB is refused", _frame(b"O", b"x" * 65537),
         "the bound on a piece", "the worker's memory could be filled", "CWE-770"),
        ("large-report", "A report above 256 KiB is refused",
         _report(json.dumps({"say": "ready", "version": 1, "x": "y" * 300_000}).encode()),
         "the bound on a report", "the worker's memory could be filled", "CWE-770"),
        ("empty", "An empty frame is refused", _frame(b"O", b""),
         "the bound on a frame", "the worker could be kept busy with nothing", "CWE-400"),
        ("unknown-kind", "A frame of no known kind is refused", _frame(b"X", b"x"),
         "the list of kinds", "what it means would be guessed", "CWE-20"),
        ("duplicate-key", "A key that appears twice is refused",
         _report(b'{"say": "ready", "version": 1, "version": 1}'),
         "the strict JSON reader", "two readers could take two meanings", "RFC 8259 section 4"),
        ("nan", "NaN is refused", _report(b'{"say": "ready", "version": NaN}'),
         "the strict JSON reader", "comparisons with it are all false", "RFC 8259 section 6"),
        ("infinity", "Infinity is refused", _report(b'{"say": "ready", "version": Infinity}'),
         "the strict JSON reader", "bounds would not bound it", "RFC 8259 section 6"),
        ("float", "A fraction is refused", _report(b'{"say": "ready", "version": 1.0}'),
         "the strict JSON reader", "a count could be no number", "CWE-20"),
        ("huge-integer", "An integer of 5,000 digits is refused",
         _report(b'{"say": "counted", "stdout": ' + b"9" * 4000 + b', "stderr": 0}'),
         "the bound on digits", "the worker could be kept busy", "CVE-2020-10735"),
        ("negative", "A negative count is refused", _said("counted", stdout=-1, stderr=0),
         "the type of each field", "output could be counted away", "CWE-20"),
        ("string-count", "A count that is text is refused", _said("counted", stdout="1", stderr=0),
         "the type of each field", "what it counts would be guessed", "CWE-20"),
        ("unknown-report", "A report of no known name is refused", _said("own_host"),
         "the list of reports", "code of the worker's could be named", "CVE-2025-14931"),
        ("extra-field", "A field that has no place is refused",
         _said("ended", **_ENDED, tenant="another"),
         "the type of each report", "another tenant could be claimed", "CWE-915"),
        ("missing-field", "A field that is missing is refused", _said("ended", exit_code=0),
         "the type of each report", "a default could be forced", "CWE-20"),
        ("exit-code", "An exit code above 255 is refused", _said("ended", **{**_ENDED, "exit_code": 256}),
         "the type of each field", "a failure could be stored that never was", "CWE-20"),
        ("signal", "A signal above 64 is refused",
         _said("ended", **{**_ENDED, "exit_code": None, "signal": 65}),
         "the type of each field", "a failure could be stored that never was", "CWE-20"),
        ("long-path", "A path above 1 KiB is refused", _said("artifact", path="x" * 2000, size=1),
         "the type of each field", "what stores files could be led astray", "CWE-20"),
        ("many-refused", "More than fifty refused files are refused",
         _said("collected", refused=[["x", "y"]] * 60, refused_total=60),
         "the type of each field", "the worker's memory could be filled", "CWE-770"),
        ("list", "A report that is no object is refused", _report(b'["ready", 1]'),
         "the type of each report", "what it means would be guessed", "CWE-20"),
        ("text", "A report that is bare text is refused", _report(b'"ready"'),
         "the type of each report", "what it means would be guessed", "CWE-20"),
        ("errno", "An error that is no errno's name is refused", _said("not_started", error="<script>"),
         "the type of each field", "text of the sandbox's would reach other places", "CWE-79"),
    )
)  # fmt: skip


def _deep(_: Callable[[bytes], object]) -> Attempt:
    async def attempt(_: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        payload = b'{"say": "ready", "version": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        try:
            if guarded:
                parse(payload)
            else:
                json.loads(payload)
        except ProtocolViolation:
            return Observation(breached=False, saw="ProtocolViolation")
        except RecursionError:
            return Observation(breached=True, saw="RecursionError")
        return Observation(breached=True, saw="read")

    return attempt


def _out_of_turn(first: bytes, wanted: type, took: str) -> Attempt:
    """Return an attempt to be believed with a report that has no place where it comes."""

    async def attempt(_: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.sendall(first)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            channel = Channel(reader, writer)
            try:
                said = await (channel.expect(wanted) if guarded else channel.read())
            except ProtocolViolation:
                return Observation(breached=False, saw="ProtocolViolation")
            finally:
                channel.close()
        return Observation(breached=True, saw=f"{took}: {type(said).__name__}")

    return attempt


_TURNS: tuple[Check, ...] = (
    Trial(
        id="protocol.deep",
        group=Group.PROTOCOL,
        title="A report nested 100,000 deep is refused",
        meaning="the worker's stack could be used up",
        source="CWE-674",
        control="the strict JSON reader",
        attempt=_deep(parse),
    ),
    *(
        Trial(
            id=f"protocol.turn.{id_}",
            group=Group.PROTOCOL,
            title=title,
            meaning=meaning,
            source="docs/security/sandbox.md",
            control="the order of the protocol",
            attempt=_out_of_turn(data, wanted, took),
        )
        for id_, title, data, wanted, took, meaning in (
            ("result-first", "A result before the start is refused", _said("ended", **_ENDED), Ready,
             "believed", "a program that never ran could have succeeded"),
            ("ready-again", "A second greeting is refused", _said("ready", version=1), Started,
             "believed", "a new supervisor could take the old one's place"),
            ("output-first", "Output before the start is refused", _frame(b"O", b"x"), Ready,
             "believed", "output could be shown that no program wrote"),
            ("start-after-end", "A start in place of the end is refused", _said("started"), Ended,
             "believed", "a run could be made to last for ever"),
        )
    ),
)  # fmt: skip

CHECKS: tuple[Check, ...] = (*_FRAMES, *_TURNS)
