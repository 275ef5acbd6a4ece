"""A hostile program may take over its supervisor: whatever it says, only its sandbox is lost.

Most tests start a real container whose first process plays a script on the same socket. Tests that
try each field and each bound send the bytes over a pair of sockets to the reader that the worker
uses. They take the fields from the file of the generation, so that they leave nothing out.
"""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runner.protocol import greeting
from runner.protocol.commands import Load, Ping, Prepare
from runner.protocol.events import (
    EVENTS,
    Alive,
    ArtifactOffered,
    Cleaned,
    Collected,
    Counted,
    Living,
    Loaded,
    NotPlaced,
    NotStarted,
    Placed,
    Started,
    SupervisorEvent,
)
from runner.protocol.frames import GRANT, HEADER, PIECE, SANDBOX, Data, frame
from runner.protocol.greeting import FIRST_WORDS, GENERATIONS, Greeting, Ready, Returning
from runner.sandbox import drive
from runner.sandbox.drive import Shelf, use
from runner.sandbox.engine.spec import container_config
from runner.sandbox.guest.channel import Channel
from runner.words.errors import ImageIncompatible, LaunchFailed, ProtocolViolation
from runner.words.execution import InputFile, Program
from tests.support.played import (
    AGREES,
    CONNECTS_AGAIN,
    FOR_EVER,
    HANGS_UP,
    PROGRAM,
    Step,
    greets,
    head,
    hears,
    lies,
    pieces,
    player,
    says,
    sends,
)
from tests.support.protocol import DOCUMENT, ENDED, EXAMPLES, Spoilt, broken, spoilt
from tests.support.sandboxes import Bench

PREPARED = (*AGREES, hears(3))
"""The script has received `prepare`, `run` and the program."""
STARTED = (*PREPARED, says(Started()))
NOTHING = Collected(refused=(), refused_total=0)
GREETING = Greeting(GENERATIONS)
SECRET = "0" * 64

Play = Callable[..., None]


@pytest.fixture
def play(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Return a function that makes a script the first process of every sandbox."""

    def replace(*steps: Step) -> None:
        def config(*args: Any) -> dict[str, Any]:
            return {**container_config(*args), "Entrypoint": player(steps)}

        monkeypatch.setattr(bench.launcher.maker, "configure", config)

    return replace


async def run(bench: Bench, **options: Any) -> Any:
    """Run a program in a sandbox whose supervisor was replaced."""
    return await bench.run(("true",), timeout_s=2.0, **options)


@asynccontextmanager
async def channel_to(said: bytes) -> AsyncIterator[Channel]:
    """Return the worker's end of a connection on which these bytes were sent."""
    ours, theirs = socket.socketpair()
    _, writer = await asyncio.open_unix_connection(sock=theirs)
    writer.write(said)
    channel = Channel(*await asyncio.open_unix_connection(sock=ours))
    try:
        async with asyncio.timeout(10):
            yield channel
    finally:
        channel.close()
        writer.transport.abort()


# Every frame and every field.


@pytest.mark.parametrize("name", DOCUMENT["events"])
async def test_each_event_as_it_should_be_is_taken(name: str) -> None:
    """The control for the next tests: an unspoilt event is read correctly."""
    async with channel_to(frame(b"C", SANDBOX, EVENTS.encode(EXAMPLES[name]))) as channel:
        assert await channel.read() == EXAMPLES[name]


@pytest.mark.parametrize("wrong", list(spoilt()), ids=str)
async def test_an_event_with_one_wrong_field_is_not_taken(wrong: Spoilt) -> None:
    """The error names the event and the field."""
    async with channel_to(frame(b"C", SANDBOX, wrong.payload)) as channel:
        with pytest.raises(ProtocolViolation) as caught:
            await channel.read()
    assert wrong.told in caught.value.detail


def test_each_event_and_each_field_is_spoilt() -> None:
    """No event and no field of the generation is left out."""
    tried = {(each.event, each.field) for each in spoilt()}
    fields = {
        (name, field)
        for name, schema in DOCUMENT["events"].items()
        for field in schema["properties"]
    }
    assert fields <= tried
    assert DOCUMENT["events"].keys() == EXAMPLES.keys()


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        (kind.encode(), length)
        for kind, bounds in DOCUMENT["frame"]["kinds"].items()
        for length in (0, bounds["longest"] + 1, 2**32 - 1)
    ],
)
async def test_a_frame_of_a_wrong_length_is_refused_by_its_header(kind: bytes, length: int) -> None:
    """The reader reserves no memory for it, and waits for no more of it."""
    async with channel_to(HEADER.pack(kind, SANDBOX, length)) as channel:
        with pytest.raises(ProtocolViolation, match=f"{kind.decode()}' with wrong length"):
            await channel.read()


@pytest.mark.parametrize(
    ("kind", "bounds"),
    [(kind, bounds) for kind, bounds in DOCUMENT["frame"]["kinds"].items() if kind != "W"],
)
async def test_the_longest_frame_is_taken(kind: str, bounds: dict[str, Any]) -> None:
    """The control: a frame that is one byte shorter than the refused one."""
    payload = EVENTS.encode(Alive()).ljust(bounds["longest"])
    async with channel_to(frame(kind.encode(), SANDBOX, payload)) as channel:
        taken = await channel.read()
    assert taken == (Alive() if kind == "C" else Data(kind.encode(), payload))


async def test_a_window_is_nothing_before_the_sandbox_lives() -> None:
    """It is not taken for a piece of output."""
    async with channel_to(frame(b"W", SANDBOX, GRANT.pack(1))) as channel:
        with pytest.raises(ProtocolViolation, match="before it was told to live"):
            await channel.read()


async def test_a_frame_of_an_unknown_kind_is_refused() -> None:
    for kind in set(range(256)) - {ord(known) for known in DOCUMENT["frame"]["kinds"]}:
        async with channel_to(frame(bytes([kind]), SANDBOX, b"x")) as channel:
            with pytest.raises(ProtocolViolation, match="unknown kind"):
                await channel.read()


@pytest.mark.parametrize("command", [Ping(), Load(), Prepare()], ids=lambda each: str(each.name))
@pytest.mark.parametrize("stream", [0, 1, 2, 2**32 - 1])
@pytest.mark.parametrize("kind", DOCUMENT["frame"]["kinds"])
async def test_a_frame_of_another_stream_is_refused(command: Any, stream: int, kind: str) -> None:
    """The worker listens only to the stream of its last command."""
    own = PROGRAM if isinstance(command, Prepare) else SANDBOX
    payload = GRANT.pack(1) if kind == "W" else EVENTS.encode(Alive())
    async with channel_to(frame(kind.encode(), stream, payload)) as channel:
        await channel.send(command)
        if stream == own and kind != "W":
            await channel.read()
            return
        wrong = f"{kind}' with wrong stream: {stream}, and" if stream != own else "granted a window"
        with pytest.raises(ProtocolViolation, match=wrong):
            await channel.read()


@pytest.mark.parametrize(
    ("field", "how", "value"),
    [
        (field, how, value)
        for field, facts in DOCUMENT["greeting"]["supervisor"]["greeting"]["properties"].items()
        for how, value in broken(facts)
    ],
)
async def test_a_greeting_with_a_wrong_field_is_not_taken(field: str, how: str, value: Any) -> None:
    said = {**json.loads(FIRST_WORDS.encode(GREETING)), field: value}
    async with channel_to(greeting.framed(json.dumps(said).encode())) as channel:
        with pytest.raises(ProtocolViolation, match=f"JSON|{field}"):
            await channel.greet("python")


# In real containers.


def raw(payload: bytes) -> Step:
    """Send these bytes as the first message."""
    return sends(greeting.framed(payload))


@pytest.mark.parametrize(
    "step",
    [
        sends(greeting.HEADER.pack(b"C", 2**32 - 1)),
        sends(greeting.HEADER.pack(b"C", 0)),
        sends(greeting.HEADER.pack(b"X", 1), b"x"),
        raw(FIRST_WORDS.encode(GREETING).replace(b"}", b', "generations": [1]}')),
        raw(FIRST_WORDS.encode(GREETING).replace(b"1", b"NaN")),
        raw(FIRST_WORDS.encode(GREETING).replace(b"1", b"1e400")),
        raw(FIRST_WORDS.encode(GREETING).replace(b"1", b"9" * 4000)),
        raw(FIRST_WORDS.encode(GREETING).replace(b"1", b"[" * 2000)),
        raw(FIRST_WORDS.encode(GREETING).replace(b"}", b', "tenant": "other"}')),
        raw(EVENTS.encode(Alive())),
        raw(FIRST_WORDS.encode(Returning(GENERATIONS, SECRET))),
        raw(b"\xff\xfe"),
        raw(b"[]"),
        pieces(b"O", b"too early"),
        HANGS_UP,
    ],
)
async def test_a_first_word_that_is_no_greeting_fails_the_launch(
    bench: Bench, play: Play, step: Step
) -> None:
    """It is oversized, unknown, malformed, ambiguous or forged: the launch fails, nothing stays."""
    play(step)
    with pytest.raises(ProtocolViolation):
        await bench.launcher.launch(bench.order())


@pytest.mark.parametrize(
    ("word", "theirs"),
    [
        (Ready(version=4), "from before there were generations"),
        (Greeting((3, 4)), "generations 3, 4"),
        (Greeting((2**31 - 1,)), "generation 2147483647"),
    ],
    ids=["an image from before generations", "newer ones", "another one"],
)
async def test_an_image_without_a_common_generation_is_told_and_not_used(
    bench: Bench, play: Play, word: greeting.FirstWord, theirs: str
) -> None:
    """It is refused at once; the error says what each side speaks and what to do."""
    play(greets(word))
    began = time.monotonic()
    with pytest.raises(ImageIncompatible) as caught:
        await bench.launcher.launch(bench.order())
    assert time.monotonic() - began < bench.launcher.report_s
    assert theirs in caught.value.detail
    assert "this worker speaks generations 1, 2" in caught.value.detail
    assert "runner images build python" in caught.value.detail


async def test_of_several_generations_a_common_one_is_picked(bench: Bench, play: Play) -> None:
    """The control: other generations that the image speaks do not matter."""
    heard = ("hear", greeting.HEADER.format, 1)
    play(greets(Greeting((*GENERATIONS, 99))), heard, hears(), says(Alive(), stream=SANDBOX))
    async with bench.sandbox() as sandbox:
        await sandbox.ping()


async def test_a_partial_frame_and_then_silence_fails_the_launch(
    bench: Bench, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's patience with a supervisor that stops in the middle is bounded."""
    monkeypatch.setattr(bench.launcher, "report_s", 1.0)
    play(sends(greeting.HEADER.pack(b"C", 100), b"{"))
    with pytest.raises(LaunchFailed):
        await bench.launcher.launch(bench.order())


TURNS: tuple[tuple[int, int, SupervisorEvent], ...] = (
    (1, SANDBOX, Alive()),
    (1, SANDBOX, Loaded(failed=())),
    (3, PROGRAM, Placed()),
    (2, PROGRAM, Started()),
    (0, PROGRAM, Counted(stdout=0, stderr=0)),
    (0, PROGRAM, ENDED),
    (1, PROGRAM, ArtifactOffered(path="b", size=0)),
    (0, PROGRAM, NOTHING),
    (1, PROGRAM, Cleaned(left=())),
    (1, SANDBOX, Living()),
)
"""A complete conversation: how many frames to receive first, the stream, and what to send then."""
INSTEAD = {NotPlaced.name: Placed.name, NotStarted.name: Started.name}


def conversation(wrong: str = "") -> tuple[Step, ...]:
    """Return the script of a conversation up to an event, which gets one more field."""
    steps = [*AGREES]
    for heard, stream, event in TURNS:
        steps.append(hears(heard))
        if event.name == INSTEAD.get(wrong, wrong):
            return (*steps, lies(EXAMPLES[wrong], stream=stream, tenant="another"))
        steps.append(says(event, stream=stream))
    return tuple(steps)


async def converse(bench: Bench) -> list[str]:
    """Play the worker's part of the conversation; return what was left after cleaning up."""
    async with bench.sandbox() as sandbox:
        await sandbox.ping()
        await sandbox.load()
        files = [InputFile("a", b"x")]
        bounds = bench.within(timeout_s=2.0).bounds
        await use(sandbox, Program(("true",), {}), bounds, files=files, again=True)
        left = await sandbox.clean()
        (await sandbox.live(SECRET, alone_s=1)).leave()
        return left


async def test_a_conversation_as_it_should_be_is_believed(bench: Bench, play: Play) -> None:
    """The control for the next test: the worker takes a script for a supervisor."""
    play(*conversation())
    assert await converse(bench) == []


@pytest.mark.parametrize("wrong", EXAMPLES)
async def test_an_event_with_a_field_more_in_its_place_loses_the_sandbox(
    bench: Bench, play: Play, wrong: str
) -> None:
    """This holds at every point in a sandbox's life."""
    play(*conversation(wrong))
    with pytest.raises(ProtocolViolation, match=f"'{wrong}' with a field that it does not have"):
        await converse(bench)


@pytest.mark.parametrize(
    "steps",
    [
        (lies(ENDED, exit_code=None),),
        (lies(ENDED, signal=9),),
        (lies(ENDED, stdout=2**60),),
        (says(Started()),),
        (says(NOTHING),),
        (says(ENDED, stream=SANDBOX),),
        (says(ENDED, stream=PROGRAM + 1),),
        (pieces(b"D", b"x"),),
        (pieces(b"O", b"x", stream=PROGRAM + 1),),
        (pieces(b"O", b"x" * 10), lies(ENDED, stdout=5)),
        (says(Counted(stdout=9, stderr=0), Counted(stdout=8, stderr=0)),),
        (pieces(b"O", b"x" * PIECE, times=100),),
        (head(b"E", 2**32 - 1),),
    ],
)
async def test_nonsense_about_a_run_is_not_believed(
    bench: Bench, play: Play, steps: tuple[Step, ...]
) -> None:
    """It contradicts itself, forges fields, speaks out of turn, or sends too much output."""
    play(*STARTED, *steps)
    with pytest.raises(ProtocolViolation):
        await run(bench, output_kb=64)


async def test_endless_events_end_at_the_deadline(bench: Bench, play: Play) -> None:
    """Valid frames without end do not keep a run alive."""
    play(*STARTED, says(Counted(stdout=0, stderr=0), times=FOR_EVER))
    began = time.monotonic()
    ran = await run(bench)
    assert ran.verdict.state == "timed_out"
    assert time.monotonic() - began < 6


async def test_success_claimed_for_a_killed_program_is_not_believed(
    bench: Bench, play: Play
) -> None:
    """A report of exit code 0 after our deadline changes nothing."""
    play(*STARTED, hears(), says(ENDED), hears(), says(NOTHING))
    ran = await run(bench)
    assert ran.ending.exit_code == 0
    assert ran.verdict.state == "timed_out"


async def test_a_second_result_is_not_taken(bench: Bench, play: Play) -> None:
    """The first one counts; the next message must belong to the next command."""
    play(*STARTED, says(ENDED), lies(ENDED, exit_code=1))
    with pytest.raises(ProtocolViolation):
        await run(bench)


async def test_what_the_last_program_did_is_not_taken_for_the_next_ones(
    bench: Bench, play: Play
) -> None:
    """A late frame is on the stream of the program that it is about."""
    late = (hears(3), says(Started()), says(ENDED))
    play(*STARTED, says(ENDED), hears(), says(NOTHING), hears(), says(Cleaned(left=())), *late)
    program, bounds = Program(("true",), {}), bench.within(timeout_s=2.0).bounds
    async with bench.sandbox() as sandbox:
        await use(sandbox, program, bounds, again=True)
        assert await sandbox.clean() == []
        with pytest.raises(ProtocolViolation, match="with wrong stream: 1, and not 2"):
            await use(sandbox, program, bounds)


@pytest.mark.parametrize(
    "steps",
    [
        (lies(ArtifactOffered("a", 1), path="../../etc/passwd"),),
        (lies(ArtifactOffered("a", 1), path="/etc/passwd"),),
        (lies(ArtifactOffered("a", 1), path="a//b"),),
        (lies(ArtifactOffered("a", 1), path="a\nb"),),
        (lies(ArtifactOffered("a", 1), path="\U0001f40d" * 257), pieces(b"D", b"x"), says(NOTHING)),
        (says(ArtifactOffered("a", 2**40)),),
        (says(ArtifactOffered("a", 1)), pieces(b"D", b"xx")),
        (says(ArtifactOffered("a", 1)), pieces(b"O", b"x")),
        (says(ArtifactOffered("a", 2)), pieces(b"D", b"x"), says(NOTHING)),
        (
            sends(
                *(
                    frame(b"C", PROGRAM, EVENTS.encode(ArtifactOffered(str(n), 0)))
                    for n in range(100)
                )
            ),
        ),
        (pieces(b"D", b"x"),),
    ],
)
async def test_forged_artifacts_are_not_taken(
    bench: Bench, play: Play, steps: tuple[Step, ...]
) -> None:
    """Names that lead elsewhere, wrong sizes, more files than were asked for."""
    play(*STARTED, says(ENDED), hears(), *steps)
    with pytest.raises(ProtocolViolation):
        await run(bench)


async def test_terminal_controls_in_refused_names_are_made_harmless(
    bench: Bench, play: Play
) -> None:
    """People print results, which hold text from a sandbox."""
    refused = Collected(refused=(("\x1b[2J", "x"),), refused_total=1)
    play(*STARTED, says(ENDED), hears(), says(refused))
    ran = await run(bench)
    assert ran.collected.refused == ("\N{REPLACEMENT CHARACTER}[2J: x",)


async def test_a_supervisor_that_does_not_take_files_is_given_up(
    bench: Bench, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our clock ends an upload that nobody reads."""
    monkeypatch.setattr("runner.sandbox.guest.patience.UPLOAD_S", 0.5)
    play(*AGREES)
    async with bench.sandbox() as sandbox:
        with pytest.raises(ProtocolViolation, match="in time"):
            await sandbox.upload([InputFile("a", bytes(10_000_000))])


async def test_a_supervisor_that_does_not_hand_files_back_is_given_up(
    bench: Bench, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our clock ends a collection as well."""
    monkeypatch.setattr("runner.sandbox.guest.patience.COLLECT_S", 0.5)
    play(*STARTED, says(ENDED))
    async with bench.sandbox() as sandbox:
        with pytest.raises(ProtocolViolation, match="in time"):
            await use(sandbox, Program(("true",), {}), bench.limits.bounds)


async def test_one_connection_is_taken_and_no_second(bench: Bench, play: Play) -> None:
    """The socket is gone after the first connection."""
    gone = says(NotStarted("ENOENT"))
    play(*PREPARED, CONNECTS_AGAIN, gone, hears(), says(NOTHING))
    ran = await run(bench)
    assert ran.ending.not_started == "ENOENT"


@pytest.mark.parametrize(
    "steps",
    [
        (says(Alive(), stream=SANDBOX),),
        (says(Started(), stream=SANDBOX),),
        (pieces(b"D", b"x", stream=1),),
        (pieces(b"O", b"x", stream=SANDBOX),),
        (sends(frame(b"W", 1, b"\0\0\0\1")),),
        (head(b"C", 2**32 - 1),),
    ],
)
async def test_nonsense_from_one_that_lives_gives_it_up(
    bench: Bench, play: Play, steps: tuple[Step, ...]
) -> None:
    """Nobody need ask for anything: it is known at once."""
    play(*AGREES, hears(), says(Living(), stream=SANDBOX), *steps)
    async with bench.sandbox() as sandbox:
        lives = await sandbox.live(SECRET, alone_s=1)
        assert type(await lives.lost) is ProtocolViolation


async def test_one_that_lives_and_says_nothing_is_let_live(bench: Bench, play: Play) -> None:
    """The control; whether it obeys is asked by a ping."""
    play(*AGREES, hears(), says(Living(), stream=SANDBOX))
    async with bench.sandbox() as sandbox:
        lives = await sandbox.live(SECRET, alone_s=1)
        with pytest.raises(ProtocolViolation, match="did not answer in time"):
            await lives.ping()
        assert not lives.lost.done()
        lives.leave()


async def test_an_older_supervisor_is_not_told_to_live(bench: Bench, play: Play) -> None:
    """It would not know what that is."""
    play(greets(Greeting((1,))), ("hear", greeting.HEADER.format, 1))
    async with bench.sandbox() as sandbox:
        with pytest.raises(ImageIncompatible, match="need generation 2"):
            await sandbox.live(SECRET, alone_s=1)


async def test_the_sink_never_sees_a_file_that_was_not_whole(bench: Bench, play: Play) -> None:
    """A transfer that is cut short raises inside the sink, which then keeps nothing."""
    cut = (says(ArtifactOffered("a", 9)), pieces(b"D", b"x"), HANGS_UP)
    play(*STARTED, says(ENDED), hears(), *cut)
    shelf = Shelf()
    async with bench.sandbox() as sandbox:
        await drive.run(sandbox, Program(("true",), {}), bench.limits.bounds)
        with pytest.raises(ProtocolViolation):
            await sandbox.collect(max_files=1, max_bytes=9, sink=shelf)
    assert shelf.files == {}
