"""Messages of a hostile program behind the supervisor's socket, and what trust would lead to.

The bytes go over a real pair of sockets into the reader that the worker uses, or, without the
control, into a reader that believes everything. `tests/security` also has complete hostile
supervisors in real containers.
"""

import asyncio
import json
import socket

from runner.protocol.events import (
    EVENTS,
    Alive,
    ArtifactOffered,
    Collected,
    Counted,
    NotStarted,
    ProgramEnded,
    Started,
    SupervisorEvent,
)
from runner.protocol.frames import CONTROL, HEADER, PIECE, SANDBOX, frame
from runner.sandbox.guest.channel import Channel, Closed
from runner.verify.bench import Bench
from runner.verify.check import Check, Group, Observation, Severity
from runner.verify.forged import forged
from runner.verify.trial import Attempt, Trial
from runner.words.errors import ProtocolViolation

_PATIENCE_S = 0.3


_ENDED = ProgramEnded(exit_code=0, signal=None, stdout=0, stderr=0, disk_full=False)
_COUNTED = Counted(stdout=1, stderr=0)


def _framed(kind: bytes, payload: bytes) -> bytes:
    return frame(kind, SANDBOX, payload)


def _event(event: SupervisorEvent, /, *, without: tuple[str, ...] = (), **changes: object) -> bytes:
    return _framed(b"C", forged(event, without=without, **changes))


def _counted(number: bytes) -> bytes:
    """Return a JSON count in a form that no JSON library writes."""
    return _framed(b"C", EVENTS.encode(_COUNTED).replace(b"1", number))


async def _read_strictly(data: bytes) -> str:
    """Read as the worker does; return what it accepted."""
    ours, theirs = socket.socketpair()
    _, sender = await asyncio.open_unix_connection(sock=theirs)
    # The reader leaves bytes that it does not want in the sender's buffer.
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
    """Read as a reader that checks neither bounds nor types does."""
    kind, _, length = HEADER.unpack_from(data)
    payload = data[HEADER.size :]
    if length > len(payload):
        # It would reserve this much memory, and wait.
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
        ("giant", "A frame of 4 GB is refused by its header", HEADER.pack(b"C", SANDBOX, 2**32 - 1),
         "the bound on a frame", "the worker's memory could be filled", "CWE-770"),
        ("large-piece", "A piece above 64 KiB is refused", _framed(b"O", b"x" * (PIECE + 1)),
         "the bound on a piece", "the worker's memory could be filled", "CWE-770"),
        ("large-event", "An event above 256 KiB is refused",
         _event(Collected(refused=(), refused_total=0), refused=[["a", "x" * CONTROL]]),
         "the bound on an event", "the worker's memory could be filled", "CWE-770"),
        ("empty", "An empty frame is refused", _framed(b"O", b""),
         "the bound on a frame", "the worker could be kept busy with nothing", "CWE-400"),
        ("other-stream", "A frame of another stream is refused",
         frame(b"C", SANDBOX + 1, EVENTS.encode(_COUNTED)),
         "the stream of each frame", "one program's acts could be reported as another's", "CWE-345"),
        ("unknown-kind", "A frame of an unknown kind is refused", _framed(b"X", b"x"),
         "the list of kinds", "its meaning would have to be guessed", "CWE-20"),
        ("duplicate-key", "A key that appears twice is refused",
         _counted(b'1, "stdout": 1'),
         "the strict JSON reader", "two readers could take two meanings", "RFC 8259 section 4"),
        ("nan", "NaN is refused", _counted(b"NaN"),
         "the strict JSON reader", "comparisons with it are all false", "RFC 8259 section 6"),
        ("infinity", "Infinity is refused", _counted(b"Infinity"),
         "the strict JSON reader", "bounds would not bound it", "RFC 8259 section 6"),
        ("float", "A count with a fraction is refused", _counted(b"1.0"),
         "the strict JSON reader", "a count could be something else than a whole number", "CWE-20"),
        ("huge-integer", "An integer of 4,000 digits is refused",
         _counted(b"9" * 4000),
         "the bound on digits", "the worker could be kept busy", "CVE-2020-10735"),
        ("negative", "A negative count is refused", _event(_COUNTED, stdout=-1),
         "the type of each field", "output could be subtracted from the count", "CWE-20"),
        ("string-count", "A count that is text is refused", _event(_COUNTED, stdout="1"),
         "the type of each field", "its value would have to be guessed", "CWE-20"),
        ("unknown-event", "An event with an unknown name is refused", _event(Alive(), say="own_host"),
         "the list of events", "the sandbox could name code of the worker", "CVE-2025-14931"),
        ("extra-field", "An unknown field is refused",
         _event(_ENDED, tenant="another"),
         "the type of each event", "another tenant could be claimed", "CWE-915"),
        ("missing-field", "An event without one of its fields is refused", _event(_ENDED, without=("signal",)),
         "the type of each event", "a default could be forced", "CWE-20"),
        ("exit-code", "An exit code above 255 is refused", _event(_ENDED, exit_code=256),
         "the type of each field", "a failure that never happened could be stored", "CWE-20"),
        ("signal", "A signal above 64 is refused",
         _event(_ENDED, exit_code=None, signal=65),
         "the type of each field", "a failure that never happened could be stored", "CWE-20"),
        ("long-path", "A path above 1 KiB is refused", _event(ArtifactOffered("x", 1), path="x" * 2000),
         "the type of each field", "code that stores files could fail or be misled", "CWE-20"),
        ("many-refused", "More than fifty refused files are refused",
         _event(Collected(refused=(), refused_total=60), refused=[["x", "y"]] * 60),
         "the type of each field", "the worker's memory could be filled", "CWE-770"),
        ("list", "An event that is not an object is refused", _framed(b"C", b'["ready", 1]'),
         "the type of each event", "its meaning would have to be guessed", "CWE-20"),
        ("text", "An event that is bare text is refused", _framed(b"C", b'"ready"'),
         "the type of each event", "its meaning would have to be guessed", "CWE-20"),
        ("errno", "An error that is not the name of an errno is refused", _event(NotStarted("EIO"), error="<script>"),
         "the type of each field", "text from the sandbox would reach other places", "CWE-79"),
    )
)  # fmt: skip


def _deep() -> Attempt:
    async def attempt(_: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        payload = EVENTS.encode(_COUNTED).replace(b"1", b"[" * 100_000 + b"]" * 100_000)
        try:
            if guarded:
                EVENTS.decode(payload)
            else:
                json.loads(payload)
        except ProtocolViolation:
            return Observation(breached=False, saw="ProtocolViolation")
        except RecursionError:
            return Observation(breached=True, saw="RecursionError")
        return Observation(breached=True, saw="read")

    return attempt


def _out_of_turn(first: bytes, wanted: type, took: str) -> Attempt:
    """Return an attempt to have an event believed that may not come at this point."""

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
        title="An event nested 100,000 deep is refused",
        meaning="the worker's stack could be used up",
        source="CWE-674",
        control="the strict JSON reader",
        attempt=_deep(),
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
            ("result-first", "A result before the start is refused", _event(_ENDED), Started,
             "believed", "a program could seem to have succeeded without having run"),
            ("answer-again", "An answer without a question is refused", _event(Alive()), Started,
             "believed", "a late answer could be taken for another one"),
            ("output-first", "Output before the start is refused", _framed(b"O", b"x"), Started,
             "believed", "output could be shown that no program wrote"),
            ("start-after-end", "A start in place of the end is refused", _event(Started()), ProgramEnded,
             "believed", "a run could be made to last for ever"),
        )
    ),
)  # fmt: skip

CHECKS: tuple[Check, ...] = (*_FRAMES, *_TURNS)
