"""Contexts as a node holds them, in a supervisor and a shell that are processes of this host."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGKILL

import pytest

from runner.base.masking import Masker
from runner.base.settings import Settings
from runner.door.replies import (
    GapReply,
    RaisedReply,
    ResultReply,
    RunEndedReply,
    ValueReply,
)
from runner.door.wire import Chunk
from runner.node.contexts.context import MOST_WAITING, Context
from runner.node.contexts.masked import HOP_S, MOST_ELEMENTS, JsonMasking, masked_json
from runner.node.contexts.run import MOST_HELD, MOST_KINDS, ContextRun, RunEvent
from runner.node.contexts.said import (
    SAID,
    ContextBroken,
    EndedSaid,
    ErrorSaid,
    OutputSaid,
    ResultSaid,
    Said,
    SaidLines,
    ValueSaid,
)
from runner.node.contexts.table import MOST, ContextTable
from runner.sandbox.guest.living import LivingSandbox
from runner.sandbox.guest.pace import BURST_S
from runner.words.errors import Conflict, NotFound
from runner.words.execution import Stream
from runner.words.living import OutputGap, OutputPiece
from tests.support.housed import House, house

PROGRAMS = Settings().recipes_path / "contexts"
SERVE = ("/usr/bin/python3", "-E", "-s", "-S", str(PROGRAMS / "serve.py"))
VALUE = "4f1c9a77e2b8d0"
WITHIN_S = 60.0


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as opened:
        yield opened


def table(home: House, living: LivingSandbox, serve: tuple[str, ...] = SERVE) -> ContextTable:
    """Return the contexts of a sandbox that knows a secret."""
    masker = Masker([VALUE])
    return ContextTable(living, {"TOKEN": VALUE}, lambda: masker, JsonMasking(), serve=serve)


async def shell(home: House, contexts: ContextTable) -> Context:
    """Begin a shell."""
    return await contexts.open("bash", str(home.workspace), {})


async def events_of(context: Context, code: str, timeout_s: float | None = None) -> list[RunEvent]:
    async with asyncio.timeout(WITHIN_S), context.run(code, {}, timeout_s) as events:
        return [each async for each in events]


async def ran(
    context: Context, code: str, timeout_s: float | None = None
) -> tuple[bytes, RunEndedReply]:
    """Run code; return its stdout, and how it ended."""
    *events, ended = await events_of(context, code, timeout_s)
    assert isinstance(ended, RunEndedReply)
    pieces = (each for each in events if isinstance(each, Chunk) and each.kind == b"O")
    return b"".join(each.data for each in pieces), ended


LASTING = "sh -c 'echo begun; exec sleep 600'"
"""A program that says when it has begun. An interrupt ends it then; earlier, a shell may lose one
between two commands, or just after it has made a process for the second."""


async def under_way(context: Context) -> asyncio.Task[RunEvent]:
    """Begin code that goes on for long; return what waits for its end once it runs."""
    begun = asyncio.Event()

    async def last_event() -> RunEvent:
        last: RunEvent | None = None
        async with context.run(LASTING, {}, None) as events:
            async for each in events:
                last = each
                begun.set()
        assert last is not None
        return last

    task = asyncio.create_task(last_event())
    async with asyncio.timeout(WITHIN_S):
        await begun.wait()
    return task


async def test_a_context_outlives_its_node_and_what_ran_is_interrupted(home: House) -> None:
    living = await home.start()
    context = await shell(home, table(home, living))
    assert (await ran(context, "kept=5"))[1].exit_code == 0
    async with context.run(LASTING, {}, None) as events:
        assert await anext(aiter(events)) == Chunk(b"O", b"begun\n")
        living.leave()
    again = await home.adopt()
    later = table(home, again)
    for process in again.processes:
        assert await later.adopt(process)
    taken = later.get(context.number)
    assert taken.info().language == "bash"
    stdout, ended = await ran(taken, "echo $kept")
    assert (stdout, ended.exit_code, ended.gone) == (b"5\n", 0, False)


FORGERY = (
    "for fd in 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo '0 0' >&$fd; done "
    "2>/dev/null; echo after; (exit 9)"
)
WITHOUT_TOKENS = """
import sys
sys.path.insert(0, {programs!r})
import context_interpreter, serve
context_interpreter.secrets.compare_digest = lambda *_: True
serve.main(sys.argv[1])
"""


@pytest.mark.parametrize("checked", [True, False])
async def test_only_the_token_makes_a_report(home: House, *, checked: bool) -> None:
    """Code that writes to every descriptor reports nothing; without the check, it would."""
    unchecked = ("python3", "-c", WITHOUT_TOKENS.format(programs=str(PROGRAMS)))
    contexts = table(home, await home.start(), SERVE if checked else unchecked)
    stdout, ended = await ran(await shell(home, contexts), FORGERY)
    if checked:
        assert (stdout, ended.exit_code) == (b"after\n", 9)
    else:
        assert ended.exit_code == 0


async def test_a_caller_that_leaves_interrupts_and_frees_the_turn(home: House) -> None:
    context = await shell(home, table(home, await home.start()))
    async with context.run(f"{LASTING}; late=1", {}, None) as events:
        assert await anext(aiter(events)) == Chunk(b"O", b"begun\n")
    assert (await ran(context, "echo ${late-no}"))[0] == b"no\n"


HALF_DEAF = (
    "python3 -c 'import signal, time; "
    "signal.signal(2, lambda *_: signal.signal(2, signal.SIG_DFL)); "
    'print("begun", flush=True); time.sleep(600)\''
)
"""A program that only a second interrupt ends."""


async def test_a_caller_that_leaves_interrupts_until_the_code_ends(home: House) -> None:
    context = await shell(home, table(home, await home.start()))
    async with context.run(HALF_DEAF, {}, None) as events:
        assert isinstance(await anext(aiter(events)), Chunk)
    async with asyncio.timeout(WITHIN_S):
        assert (await ran(context, "echo on"))[0] == b"on\n"


async def test_more_than_some_may_not_wait(home: House) -> None:
    context = await shell(home, table(home, await home.start()))
    first = await under_way(context)
    runs = [asyncio.create_task(ran(context, "true")) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Conflict):
        context.require_room()
    await context.interrupt()
    async with asyncio.timeout(WITHIN_S):
        results = await asyncio.gather(*runs)
        assert _exit_code(await first) == 130
    assert [ended.exit_code for _, ended in results] == [0] * len(runs)


async def test_time_that_is_up_interrupts_and_stubborn_code_loses_its_shell(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.node.contexts.context.KILLED_AFTER_S", 0.5)
    context = await shell(home, table(home, await home.start()))
    _, ended = await ran(context, "sleep 600", 0.1)
    assert (ended.timed_out, ended.gone) == (True, False)
    _, ended = await ran(context, "trap '' INT; while :; do :; done", 0.1)
    assert (ended.timed_out, ended.gone, ended.signal) == (True, True, 9)
    with pytest.raises(Conflict):
        context.require_room()
    await context.restart()
    assert (await ran(context, "echo again"))[0] == b"again\n"


async def test_a_restart_ends_what_runs_and_everything_it_has_started(home: House) -> None:
    context = await shell(home, table(home, await home.start()))
    pid = int((await ran(context, "sleep 600 & echo $!"))[0])
    running = await under_way(context)
    async with asyncio.timeout(WITHIN_S):
        await context.restart()
        assert _is_gone(await running)
        while _runs(pid):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)


def _is_gone(event: RunEvent) -> bool:
    return isinstance(event, RunEndedReply) and event.gone


def _exit_code(event: RunEvent) -> int:
    assert isinstance(event, RunEndedReply)
    return event.exit_code


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_one_that_is_closed_is_gone_with_what_runs_in_it(home: House) -> None:
    contexts = table(home, await home.start())
    context = await shell(home, contexts)
    running = await under_way(context)
    contexts.close(context.number)
    async with asyncio.timeout(WITHIN_S):
        assert _is_gone(await running)
    with pytest.raises(NotFound):
        contexts.get(context.number)


async def test_a_sandbox_has_so_many_and_no_more(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST > 1
    monkeypatch.setattr("runner.node.contexts.table.MOST", 1)
    contexts = table(home, await home.start())
    await shell(home, contexts)
    with pytest.raises(Conflict):
        await shell(home, contexts)


@pytest.mark.parametrize(
    "line",
    [
        "'nonsense'",
        """'{"say": "ended", "run": -1, "count": 0, "exit_code": 0}'""",
        """'{"say": "output", "run": 1, "of": "stdout", "text": "' + 'x' * 70_000 + '"}'""",
        """'{"say": "unknown", "run": 1}'""",
        "'x' * 600_000",
    ],
)
async def test_what_a_context_never_says_ends_it_alone(home: House, line: str) -> None:
    """The sandbox goes on: the code shares a user with what speaks for it."""
    serve = ("python3", "-c", f"import sys; print({line}, flush=True); sys.stdin.read()")
    living = await home.start()
    contexts = table(home, living, serve)
    with pytest.raises(ContextBroken):
        await contexts.open("bash", str(home.workspace), {})
    assert list(contexts) == []
    await living.ping()


# ---- What a run tells ----------------------------------------------------------------------------


def free(_: float) -> None:
    """Charge nothing."""


async def told(*said: Said | OutputGap, values: tuple[str, ...] = (VALUE,)) -> list[RunEvent]:
    """Return what a run tells of this."""
    masking = JsonMasking()
    run = ContextRun(1, Masker(values), masking.turns(free), free)

    async def take() -> None:
        for each in said:
            await run.take(each)

    taking = asyncio.create_task(take())
    found = [each async for each in run.events()]
    await taking
    masking.close()
    return found


END = EndedSaid(1, 1, 0)


async def test_secrets_are_starred_across_pieces_and_in_every_kind() -> None:
    half, rest = VALUE[:6], VALUE[6:]
    events = await told(
        OutputSaid(1, "stdout", f"a {half}"),
        OutputSaid(1, "stdout", f"{rest} b"),
        ValueSaid(1, "text/html", json=False, text=f"<b>{half}"),
        ValueSaid(1, "text/html", json=False, text=f"{rest}</b>"),
        ValueSaid(1, "application/json", json=True, text=json.dumps({VALUE: [VALUE, 1]})),
        ResultSaid(1, main=True),
        ErrorSaid(1, "ValueError", VALUE, f"at {VALUE}"),
        END,
    )
    text = b"".join(each.data for each in events if isinstance(each, Chunk))
    stars = "*" * len(VALUE)
    assert f"a {stars} b".encode() in text
    assert f"<b>{stars}</b>".encode() in text
    assert json.dumps({stars: [stars, 1]}).encode() in text
    assert RaisedReply("ValueError", stars, f"at {stars}") in events
    assert VALUE not in repr(events)


async def test_output_that_comes_within_a_result_is_told_after_it() -> None:
    """A thread or a child may write while a large result is coming."""
    events = await told(
        ValueSaid(1, "image/png", json=False, text="half"),
        OutputSaid(1, "stdout", "within"),
        ValueSaid(1, "image/png", json=False, text="rest"),
        ResultSaid(1, main=True),
        END,
    )
    assert events[:-1] == [
        ValueReply("image/png", json=False),
        Chunk(b"D", b"half"),
        Chunk(b"D", b"rest"),
        ResultReply(main=True, truncated=False),
        Chunk(b"O", b"within"),
    ]


async def test_a_result_is_cut_off_by_too_much_output_within_it() -> None:
    piece = "x" * 65_536
    events = await told(
        ValueSaid(1, "image/png", json=False, text="half"),
        *(OutputSaid(1, "stderr", piece) for _ in range(MOST_HELD // len(piece) + 1)),
        END,
    )
    assert events[2] == ResultReply(main=False, truncated=True)
    written = b"".join(
        each.data for each in events if isinstance(each, Chunk) and each.kind == b"E"
    )
    assert len(written) > MOST_HELD


async def test_in_json_a_secret_is_found_however_it_is_escaped() -> None:
    value = 'with "quotes" \\ and ünicode'
    masker = Masker([value, "1234567890123"])
    for given in (
        {"a": value},
        {value: 1},
        [json.dumps(value), repr(value)],
        [1234567890123, None, True, 1.5],
    ):
        for ascii_only in (True, False):
            text, _ = masked_json(json.dumps(given, ensure_ascii=ascii_only), masker)
            assert text is not None
            assert "quotes" not in text
            assert "1234567890123" not in text
    assert masked_json("{", masker)[0] is None
    assert masked_json('{"a": 1, "a": 2}', masker)[0] is None


@pytest.mark.parametrize("depth", range(300, 1300, 50))
def test_json_that_is_nested_too_deeply_is_no_result(depth: int) -> None:
    """Reading, masking and writing each have a limit of their own; none of them is a failure."""
    text = f'{"[" * depth}"{VALUE}"{"]" * depth}'
    whole, seconds = masked_json(text, Masker([VALUE]))
    assert whole is None or VALUE not in whole
    assert seconds > 0


@pytest.mark.parametrize("text", ["[NaN]", "[Infinity]", "[1e999]"])
def test_what_other_readers_take_for_no_json_is_none(text: str) -> None:
    assert masked_json(text, Masker([VALUE]))[0] is None
    assert masked_json(text, Masker(()))[0] is None


def test_json_is_passed_on_as_one_line() -> None:
    """Whoever passes it on need not read it again."""
    text, _ = masked_json('[\n"\\n\u2028\u0085",\r\n1]', Masker([VALUE]))
    assert text is not None
    assert text.splitlines() == [text]
    assert text.isascii()


def test_json_of_very_many_elements_is_none_and_takes_little_time() -> None:
    masker = Masker([VALUE])
    many = f"[{'1,' * (MOST_ELEMENTS + 1)}1]"
    fewer = f"[{'1,' * (MOST_ELEMENTS - 1)}1]"
    refused, quick = masked_json(many, masker)
    taken, slow = masked_json(fewer, masker)
    assert (refused, taken is None) == (None, False)
    assert quick < slow / 2


def test_what_is_within_strings_is_no_element() -> None:
    table = ["1,2:[{" * MOST_ELEMENTS, 'a"\\"b,' * MOST_ELEMENTS]
    whole, _ = masked_json(json.dumps(table), Masker([VALUE]))
    assert whole is not None
    assert json.loads(whole) == table


async def test_a_sandbox_s_json_is_masked_in_turn_and_charged_before_it_is() -> None:
    """Text, and another sandbox's JSON, wait for one of a sandbox's texts at most."""
    masking = JsonMasking()
    charged: list[float] = []
    masker = Masker([VALUE])
    greedy, other = masking.turns(charged.append), masking.turns(free)
    large = f"[{'1,' * (MOST_ELEMENTS // 4)}1]"
    works = [asyncio.create_task(greedy.masked(large, masker)) for _ in range(8)]
    await asyncio.sleep(0)
    assert len(charged) == len(works)
    assert min(charged) > HOP_S
    async with asyncio.timeout(WITHIN_S):
        assert await other.masked('["' + "x" * 2000 + '"]', masker)
        assert sum(each.done() for each in works) <= 2
        assert all(await asyncio.gather(*works))
    masking.close()
    assert sum(charged) > BURST_S


async def test_short_json_is_masked_at_once_and_charged() -> None:
    """To have a thread do it would take longer. A closed one shows that none does it."""
    masking = JsonMasking()
    masking.close()
    charged: list[float] = []
    turns = masking.turns(charged.append)
    assert await turns.masked("[1]", Masker([VALUE])) == "[1]"
    assert charged
    with pytest.raises(RuntimeError):
        await turns.masked(f'["{"x" * 2000}"]', Masker([VALUE]))


@pytest.mark.parametrize("is_json", [True, False])
async def test_a_result_has_so_many_kinds_and_says_that_it_lacks_others(*, is_json: bool) -> None:
    """However many come, and without text: whoever reads them keeps their names."""
    said = [
        ValueSaid(1, f"a/{each}", json=is_json, text="1" if is_json else "")
        for each in range(MOST_KINDS + 5)
    ]
    one = ValueSaid(1, "a/b", json=False, text="x")
    events = await told(*said, ResultSaid(1, main=True), one, ResultSaid(1, main=False), END)
    assert sum(isinstance(each, ValueReply) for each in events) == MOST_KINDS + 1
    assert [each for each in events if isinstance(each, ResultReply)] == [
        ResultReply(main=True, truncated=True),
        ResultReply(main=False, truncated=False),
    ]


async def test_a_kind_that_comes_twice_is_told_once() -> None:
    events = await told(
        ValueSaid(1, "a/a", json=False, text="1"),
        ValueSaid(1, "b/b", json=False, text="2"),
        ValueSaid(1, "a/a", json=False, text="3"),
        ResultSaid(1, main=True),
        END,
    )
    assert events[:-1] == [
        ValueReply("a/a", json=False),
        Chunk(b"D", b"1"),
        ValueReply("b/b", json=False),
        Chunk(b"D", b"2"),
        ResultReply(main=True, truncated=True),
    ]


async def test_a_value_that_comes_in_very_small_pieces_is_taken_in_linear_time() -> None:
    """The control adds up what has come with each piece, as this did once."""

    async def seconds(pieces: int) -> float:
        run = ContextRun(1, Masker([VALUE]), JsonMasking().turns(free), free)
        began = time.thread_time()
        for _ in range(pieces):
            await run.take(ValueSaid(1, "application/json", json=True, text="1"))
        return time.thread_time() - began

    def quadratic(pieces: int) -> float:
        came: list[str] = []
        began = time.thread_time()
        for _ in range(pieces):
            came.append("1")
            sum(map(len, came))
        return time.thread_time() - began

    assert await seconds(20_000) < 40 * await seconds(2_000)
    assert quadratic(20_000) > 40 * quadratic(2_000)


async def test_a_line_that_comes_in_very_small_pieces_is_found_in_linear_time() -> None:
    async def seconds(size: int) -> float:
        async def output() -> AsyncIterator[OutputPiece]:
            for at in range(size):
                yield OutputPiece(Stream.STDOUT, at, b"x")

        began = time.thread_time()
        assert [each async for each in SaidLines(output(), torn=True, charge=free)] == []
        return time.thread_time() - began

    assert await seconds(40_000) < 40 * await seconds(4_000)


async def test_each_line_is_charged_to_the_sandbox_s_share_of_the_loop() -> None:
    """However short its lines are: 65 KiB of them are more than a sandbox may take at once."""
    charged: list[float] = []
    line = b'{"say":"ready","run":1}\n'

    async def output() -> AsyncIterator[OutputPiece]:
        yield OutputPiece(Stream.STDOUT, 0, line * 2_700)

    lines = SaidLines(output(), torn=False, charge=charged.append)
    assert len([each async for each in lines]) == 2_700
    assert sum(charged) > BURST_S


async def test_what_is_about_an_earlier_run_is_left_out() -> None:
    events = await told(OutputSaid(0, "stdout", "old"), EndedSaid(0, 1, 0), END)
    assert events == [RunEndedReply(1, 0, None, timed_out=False, gone=False)]


async def test_a_gap_ends_the_result_that_it_has_torn() -> None:
    events = await told(
        ValueSaid(1, "text/plain", json=False, text="begun"),
        OutputGap(0, 100),
        ResultSaid(1, main=True),
        END,
    )
    assert events[:4] == [
        ValueReply("text/plain", json=False),
        Chunk(b"D", b"begun"),
        ResultReply(main=False, truncated=True),
        GapReply(100),
    ]
    assert isinstance(events[4], RunEndedReply)


async def test_lines_are_found_across_pieces_and_behind_gaps() -> None:
    """The next listener begins where the last line has ended, whatever came after it."""
    line = SAID.encode(END) + b"\n"

    async def output() -> AsyncIterator[OutputPiece | OutputGap]:
        yield OutputPiece(Stream.STDOUT, 0, b"torn\n" + line[:9])
        yield OutputPiece(Stream.STDERR, 14, b"last words")
        yield OutputPiece(Stream.STDOUT, 24, line[9:] + b"half a li")
        yield OutputGap(24 + len(line), 50)
        yield OutputPiece(Stream.STDOUT, 1000, b"ne\n" + line + b"more")

    lines = SaidLines(output(), torn=True, charge=free)
    assert [each async for each in lines] == [END, OutputGap(24 + len(line), 50), END]
    assert lines.offset == 1003 + len(line)


async def test_a_shared_context_is_the_same_for_all_who_ask(home: House) -> None:
    contexts = table(home, await home.start())
    own = await shell(home, contexts)
    folder = str(home.workspace)
    (first, done), (second, again) = await asyncio.gather(
        contexts.share("bash", folder), contexts.share("bash", folder)
    )
    assert (done, again, first) == ("opened", None, second)
    assert first is not own
    await events_of(first, "exit 3")
    assert await contexts.share("bash", folder) == (first, "restarted")
    first.process.signal(SIGKILL)
    await first.process.exited
    other, done = await contexts.share("bash", folder)
    assert (done, other is first) == ("opened", False)
