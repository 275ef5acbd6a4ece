"""The node's door admits callers with a grant, over a real socket, without any sandbox."""

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from runner.base.tracing import NoTracer
from runner.door import calls
from runner.door.call import DoorCall
from runner.door.calls import CALLS
from runner.door.client import AWAY_S, Door
from runner.door.grants import GrantKey, Knock, read_key
from runner.door.replies import REPLIES, AdmittedReply, FailedReply
from runner.door.wire import DoorLine, Hung
from runner.node.gate import Gate
from runner.node.measures import Measures
from runner.node.residents import door as doors
from runner.node.residents.door import NodeDoor, open_door
from runner.node.residents.ending import EndRecords
from runner.node.residents.furnish import Furnisher
from runner.node.residents.journal import Journal
from runner.node.residents.residents import Residents
from runner.node.runs.policy import ExecutionPolicy
from runner.store.db import Database
from runner.words.errors import NodeAway, SandboxEnded
from runner.words.ids import new_id

KNOCK = Knock(new_id(), new_id(), "key:agent")


def nobody() -> Residents:
    """Return a node on which nothing lives. No call here needs more."""
    return Residents(
        database=Database(SecretStr("postgresql://nowhere.invalid/")),
        furnisher=Furnisher.__new__(Furnisher),
        journal=Journal(Database(SecretStr("postgresql://nowhere.invalid/"))),
        policy=ExecutionPolicy(
            node="n",
            instance="i",
            lease=timedelta(seconds=30),
            max_attempts=1,
            flood_bytes=1,
            max_artifacts=0,
        ),
        ends=EndRecords.__new__(EndRecords),
        gate=Gate(),
        most=1,
    )


@pytest.fixture
async def residents() -> Residents:
    return nobody()


@pytest.fixture
async def folder(tmp_path: Path, residents: Residents) -> AsyncIterator[Path]:
    journal = Journal(Database(SecretStr("postgresql://nowhere.invalid/")))
    async with open_door(
        tmp_path / "door",
        residents=residents,
        journal=journal,
        measures=Measures(),
        tracer=NoTracer(),
        node="n",
    ):
        yield tmp_path / "door"


async def said(folder: Path, *frames: bytes) -> list[object]:
    """Return all that the node answers to these frames."""
    reader, writer = await asyncio.open_unix_connection(folder / "door.sock")
    line = DoorLine(reader, writer, says=CALLS, hears=REPLIES)
    writer.write(b"".join(frames))
    heard: list[object] = []
    try:
        async with asyncio.timeout(60):
            while True:
                heard.append(await line.hear())
                if isinstance(heard[-1], FailedReply):
                    line.abort()
    except Hung:
        return heard
    finally:
        line.abort()


def framed(call: DoorCall) -> bytes:
    text = CALLS.encode(call)
    return struct.pack(">cI", b"C", len(text)) + text


def found(folder: Path) -> tuple[dict[str, int], set[int]]:
    """Return modes and groups of a folder and its entries."""
    paths = (folder, *folder.iterdir())
    modes = {path.name: path.stat().st_mode & 0o777 for path in paths}
    return modes, {path.stat().st_gid for path in paths}


async def test_until_a_restarted_node_knows_its_sandboxes_it_is_away(folder: Path) -> None:
    with pytest.raises(NodeAway, match="just started"):
        await Door(folder).refresh(KNOCK)


async def test_a_sandbox_that_does_not_live_there_has_ended(
    folder: Path, residents: Residents
) -> None:
    residents.taken_over.set()
    with pytest.raises(SandboxEnded):
        await Door(folder).refresh(KNOCK)


async def test_a_good_grant_is_admitted_and_others_are_not(folder: Path) -> None:
    key, stat = read_key(folder), calls.StatCall("a")
    grants = {
        "good": key.sign(KNOCK, "stat"),
        "forged": GrantKey(b"x" * 32).sign(KNOCK, "stat"),
        "expired": key.sign(KNOCK, "stat", now=time.time() - 60),
        "for another call": key.sign(KNOCK, "remove"),
        "nonsense": "a.b",
    }
    for name, grant in grants.items():
        answers = await said(folder, framed(calls.KnockCall(grant, "stat")), framed(stat))
        assert isinstance(answers[0], AdmittedReply) == (name == "good"), name
        assert isinstance(answers[-1], FailedReply)
        assert answers[-1].error == ("NodeAway" if name == "good" else "NotPermitted")


async def test_what_is_called_is_what_the_grant_is_for(folder: Path) -> None:
    grant = read_key(folder).sign(KNOCK, "stat")
    knock = framed(calls.KnockCall(grant, "stat"))
    (refused,) = await said(folder, knock, framed(calls.RemoveCall("a", recursive=True)))
    assert isinstance(refused, FailedReply)
    assert refused.error == "ProtocolViolation"


@pytest.mark.parametrize(
    "frames",
    [
        [framed(calls.StatCall("a")), framed(calls.StatCall("a"))],
        [struct.pack(">cI", b"D", 1) + b"x", framed(calls.FinishCall())],
        [struct.pack(">cI", b"C", 2**31)],
        [os.urandom(64)],
    ],
)
async def test_who_does_not_knock_is_told_so(folder: Path, frames: list[bytes]) -> None:
    (refused,) = await said(folder, *frames)
    assert isinstance(refused, FailedReply)
    assert refused.error == "ProtocolViolation"


async def test_who_says_nothing_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "ADMITTED_S", 0.1)
    (refused,) = await said(folder)
    assert isinstance(refused, FailedReply)
    assert refused.error == "NotPermitted"


@pytest.mark.parametrize(("patience", "first"), [(1, FailedReply), (20, AdmittedReply)])
async def test_on_a_slow_host_a_call_may_be_on_its_way_for_longer(
    tmp_path: Path, residents: Residents, patience: int, first: type[object]
) -> None:
    """It was signed half a minute ago. The control: elsewhere nobody signs for that long."""
    journal = Journal(Database(SecretStr("postgresql://nowhere.invalid/")))
    door = open_door(
        tmp_path / "d",
        residents=residents,
        journal=journal,
        measures=Measures(),
        tracer=NoTracer(),
        node="n",
        patience=patience,
    )
    async with door:
        signed = read_key(tmp_path / "d").sign(
            KNOCK, "refresh", good_for_s=80, now=time.time() - 30
        )
        heard = await said(
            tmp_path / "d",
            framed(calls.KnockCall(signed, "refresh")),
            framed(calls.RefreshCall()),
        )
    assert isinstance(heard[0], first)


async def test_a_grant_is_good_for_as_long_as_its_caller_waits(
    folder: Path, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "key").write_bytes((folder / "key").read_bytes())
    heard: asyncio.Queue[object] = asyncio.Queue()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = DoorLine(reader, writer, says=REPLIES, hears=CALLS)
        heard.put_nowait(await line.hear())
        line.abort()

    async with await asyncio.start_unix_server(hear, slow / "door.sock"):
        asked_at = time.time()
        with pytest.raises(NodeAway, match="went away"):
            await Door(slow, away_s=40).refresh(KNOCK)
    knock = heard.get_nowait()
    assert isinstance(knock, calls.KnockCall)
    read_key(slow).check(knock.grant, "refresh", most_s=600, now=asked_at + 40 - 1)


async def test_the_folder_the_socket_and_the_key_are_the_nodes_alone(folder: Path) -> None:
    modes, _ = found(folder)
    assert modes == {"door": 0o700, "door.sock": 0o600, "key": 0o600}


async def test_a_group_that_may_knock_may_read_the_key(tmp_path: Path) -> None:
    journal = Journal(Database(SecretStr("postgresql://nowhere.invalid/")))
    group = os.getgid()
    async with open_door(
        tmp_path / "d",
        residents=nobody(),
        journal=journal,
        measures=Measures(),
        tracer=NoTracer(),
        node="n",
        group=group,
    ):
        modes, groups = found(tmp_path / "d")
        assert modes == {"d": 0o750, "door.sock": 0o660, "key": 0o640}
        assert groups == {group}


async def test_a_node_that_is_away_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(NodeAway) as away:
        await Door(tmp_path).refresh(KNOCK)
    assert away.value.retry_after_s == 1


async def test_a_node_that_hangs_is_away_within_seconds(folder: Path, tmp_path: Path) -> None:
    """It accepts, as the kernel does for a stopped process, and never answers."""
    hung = tmp_path / "hung"
    hung.mkdir()
    (hung / "key").write_bytes((folder / "key").read_bytes())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(hung / "door.sock"))
        listener.listen(5)
        async with asyncio.timeout(60):
            with pytest.raises(NodeAway):
                await Door(hung, away_s=0.1).refresh(KNOCK)
    assert AWAY_S <= 2


async def test_a_key_that_was_made_anew_is_read_anew(folder: Path) -> None:
    door = Door(folder)
    with pytest.raises(NodeAway, match="just started"):
        await door.refresh(KNOCK)
    door._ways._keys[folder] = GrantKey(b"o" * 32)
    with pytest.raises(NodeAway, match="refused our grant"):
        await door.refresh(KNOCK)
    with pytest.raises(NodeAway, match="just started"):
        await door.refresh(KNOCK)


async def test_more_calls_than_it_answers_are_refused(tmp_path: Path) -> None:
    journal = Journal(Database(SecretStr("postgresql://nowhere.invalid/")))
    key = GrantKey(b"k" * 32)
    door = NodeDoor(
        residents=nobody(),
        journal=journal,
        measures=Measures(),
        tracer=NoTracer(),
        node="n",
        key=key,
        most=2,
    )
    server = await asyncio.start_unix_server(door.serve, tmp_path / "door.sock")
    (tmp_path / "key").write_bytes(b"k" * 32)
    held = [await asyncio.open_unix_connection(tmp_path / "door.sock") for _ in range(2)]
    with pytest.raises(NodeAway, match="2 calls"):
        await Door(tmp_path).refresh(KNOCK)
    for _, writer in held:
        writer.transport.abort()
    async with asyncio.timeout(60):
        while door._under_way:  # noqa: ASYNC110 - it tells nobody that callers have gone
            await asyncio.sleep(0.01)
    with pytest.raises(NodeAway, match="just started"):
        await Door(tmp_path).refresh(KNOCK)
    server.close()
    await door.close()


async def test_bytes_that_nobody_wants_do_not_hide_why(folder: Path, residents: Residents) -> None:
    residents.taken_over.set()

    async def plenty() -> AsyncIterator[bytes]:
        for _ in range(2000):
            yield bytes(65536)

    with pytest.raises(SandboxEnded):
        await Door(folder).write_file(KNOCK, "a", plenty())
