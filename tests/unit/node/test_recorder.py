"""How a program's output is recorded, whatever its pieces are."""

import asyncio
import dataclasses
import hashlib
from typing import NoReturn, cast

import pytest

from runner.audit import events as audit
from runner.node.runs.recorder import FLUSH_AT_BYTES, MOST_PIECES, Recorder, until_stored
from runner.queue.changes import Changes
from runner.store.db import Database
from runner.words.errors import StoreUnavailable
from runner.words.execution import Claim, EventKind, Stream
from runner.words.ids import new_id
from runner.words.resources import RunBounds

SECRET = "a-secret-of-some-length"  # noqa: S105 - made up
BOUNDS = RunBounds(timeout_s=5, output_kb=256)
DECIDED = audit.AuditEvent("worker", audit.Action.EGRESS_CONNECT, audit.Outcome.DENIED)
KINDS = {Stream.STDOUT: EventKind.STDOUT, Stream.STDERR: EventKind.STDERR}


@pytest.fixture
def recorder() -> Recorder:
    """Return a recorder whose execution has no recorded start: it writes nothing by itself."""
    return Recorder(
        database=cast("Database", None),
        changes=cast("Changes", None),
        claim=Claim(new_id(), new_id(), 1),
        bounds=BOUNDS,
    )


def output(recorder: Recorder, stream: Stream) -> bytes:
    """Return what remains of one stream."""
    return b"".join(each.chunk for each in recorder.rest.entries if each.kind is KINDS[stream])


async def test_neighbouring_pieces_of_a_stream_are_one_event(recorder: Recorder) -> None:
    """They keep the order in which they came."""
    for stream, chunk in (
        (Stream.STDOUT, b"one "), (Stream.STDOUT, b"two"), (Stream.STDERR, b"three"),
        (Stream.STDOUT, b"four"),
    ):  # fmt: skip
        await recorder.add(stream, chunk)
    await recorder.close()
    assert [(each.kind, each.chunk) for each in recorder.rest.entries] == [
        (EventKind.STDOUT, b"one two"),
        (EventKind.STDERR, b"three"),
        (EventKind.STDOUT, b"four"),
    ]


async def test_a_program_does_not_decide_how_many_events_there_are(recorder: Recorder) -> None:
    """It writes byte by byte to both streams; in a full batch, their relative order is lost."""
    size = FLUSH_AT_BYTES // 2 - 1
    for at in range(size):
        await recorder.add(Stream.STDOUT, bytes([at % 251]))
        await recorder.add(Stream.STDERR, bytes([at % 241]))
    await recorder.close()
    assert len(recorder.rest.entries) == MOST_PIECES
    assert output(recorder, Stream.STDOUT) == bytes(at % 251 for at in range(size))
    assert output(recorder, Stream.STDERR) == bytes(at % 241 for at in range(size))


async def test_a_secret_in_pieces_is_starred_though_the_other_stream_comes_between(
    recorder: Recorder,
) -> None:
    """The hash is that of the stored, masked output."""
    await recorder.hide([SECRET])
    for character in f"<{SECRET}> and <{SECRET[:9]}":
        await recorder.add(Stream.STDOUT, character.encode())
        await recorder.add(Stream.STDERR, b".")
    await recorder.close()
    stdout = output(recorder, Stream.STDOUT)
    assert stdout == b"<" + b"*" * len(SECRET) + b"> and <" + b"*" * 9
    assert output(recorder, Stream.STDERR) == b"." * len(stdout)
    digest = hashlib.sha256(stdout).hexdigest()
    assert recorder.hashes()[Stream.STDOUT] == f"sha256:{digest}"


class Away:
    """A database that does not answer."""

    def __init__(self) -> None:
        self.asked = 0
        self.first = asyncio.Event()

    def tenant(self, _: object) -> NoReturn:
        """Count, and fail."""
        self.asked += 1
        self.first.set()
        raise StoreUnavailable("PostgreSQL: away")


async def test_a_recorder_asks_for_nothing_once_its_attempt_is_over() -> None:
    """Otherwise its timer would repeat a write while PostgreSQL is away."""
    away = Away()
    recorder = Recorder(
        database=cast("Database", away),
        changes=cast("Changes", None),
        claim=Claim(new_id(), new_id(), 1),
        bounds=BOUNDS,
    )
    recorder.begin(1)
    await recorder.add(Stream.STDOUT, b"output")
    async with asyncio.timeout(5):
        await away.first.wait()
    await recorder.stop()
    asked = away.asked
    await asyncio.sleep(0.5)
    assert away.asked == asked


async def test_what_no_lease_bounds_is_repeated_for_a_while_and_then_told() -> None:
    """Nothing holds its slot for ever."""
    asked = 0

    async def refused() -> None:
        nonlocal asked
        asked += 1
        raise StoreUnavailable("PostgreSQL: away")

    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailable):
            await until_stored(refused, patience_s=0.3)
    assert asked > 1


NOTE = "[egress] refused: a.test:443"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [], f"{NOTE}\n"),
        ([b"one\n"], [b"two\n"], f"one\n{NOTE}\ntwo\n"),
        ([b"on"], [b"e\ntw", b"o\n"], f"one\n{NOTE}\ntwo\n"),
        ([b"on"], [b"e"], f"one\n{NOTE}\n"),
    ],
)
async def test_a_note_stands_between_the_programs_lines(
    recorder: Recorder, before: list[bytes], after: list[bytes], expected: str
) -> None:
    """It is on stderr, and never inside a line."""
    for chunk in before:
        await recorder.add(Stream.STDERR, chunk)
    recorder.note(NOTE)
    for chunk in after:
        await recorder.add(Stream.STDERR, chunk)
    await recorder.close()
    assert output(recorder, Stream.STDERR) == expected.encode()
    assert output(recorder, Stream.STDOUT) == b""


async def test_a_note_hides_no_secret_from_its_mask(recorder: Recorder) -> None:
    """This holds for a secret that the program is writing, and for one in the note."""
    await recorder.hide([SECRET])
    await recorder.add(Stream.STDERR, SECRET[:7].encode())
    recorder.note(f"[egress] refused: {SECRET}.test")
    await recorder.add(Stream.STDERR, SECRET[7:].encode() + b"\n")
    await recorder.close()
    stars = "*" * len(SECRET)
    assert output(recorder, Stream.STDERR).decode() == f"{stars}\n[egress] refused: {stars}.test\n"


@pytest.mark.parametrize("cut", [True, False])
async def test_a_note_takes_nothing_of_what_is_kept(cut: bool) -> None:
    """Even if the program has used up its output; an incomplete character is left out as usual."""
    recorder = Recorder(
        database=cast("Database", None),
        changes=cast("Changes", None),
        claim=Claim(new_id(), new_id(), 1),
        bounds=dataclasses.replace(BOUNDS, output_kb=1),
    )
    written = "é".encode() * 512
    await recorder.add(Stream.STDERR, written[:-1] if cut else written)
    recorder.note(NOTE)
    await recorder.close(cut={Stream.STDERR} if cut else ())
    kept = written[:-2] if cut else written
    assert output(recorder, Stream.STDERR) == kept + f"\n{NOTE}\n".encode()


async def test_notes_are_told_apart_from_the_programs_output(recorder: Recorder) -> None:
    """This holds even if it writes right before and after them."""
    await recorder.add(Stream.STDERR, b"one\n")
    recorder.note(NOTE)
    recorder.note(NOTE)
    await recorder.add(Stream.STDERR, b"two\n")
    await recorder.close()
    assert [(each.chunk.decode(), dict(each.data)) for each in recorder.rest.entries] == [
        ("one\n", {}),
        (f"{NOTE}\n{NOTE}\n", {"note": True}),
        ("two\n", {}),
    ]


async def test_a_secret_is_starred_before_what_is_told_is_shortened(recorder: Recorder) -> None:
    """A cut secret shows no beginning, in event, audit record and note."""
    await recorder.hide([SECRET])
    told = f"no rule permits /{'a' * 250}{SECRET}/b; it would need another"
    recorder.decide({"detail": told}, dataclasses.replace(DECIDED, metadata={"detail": told}))
    recorder.note(told)
    await recorder.close()
    decision, note = recorder.rest.entries
    expected = f"no rule permits /{'a' * 250}****; it would need another"
    assert decision.data["detail"] == expected
    assert recorder.rest_audited[0].metadata["detail"] == expected
    assert note.chunk.decode() == f"{expected}\n"


@pytest.mark.parametrize("filler", ["a", "a ", '"'])
async def test_what_is_on_record_of_a_decision_is_bounded(recorder: Recorder, filler: str) -> None:
    """This holds however much the proxy reports."""
    told = {"host": filler * 40_000, "detail": filler * 40_000}
    recorder.decide(told, dataclasses.replace(DECIDED, metadata=told))
    await recorder.close()
    (decision,) = recorder.rest.entries
    (record,) = recorder.rest_audited
    for kept in (decision.data, record.metadata):
        assert len(str(kept["host"])) <= 1000
        assert len(str(kept["detail"])) <= 1000
