"""Living sandboxes on a real node, through its door: made, used, ended, taken over."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import docker
import pytest

from runner.base import health
from runner.door.creation import Creation
from runner.door.grants import Knock
from runner.store.sandboxes import LifeChange
from runner.words.errors import Conflict, FileRefused, Gone, NodeAway, NotFound, SandboxEnded
from runner.words.ids import new_id
from runner.words.lives import EndReason, Life, OnTimeout
from runner.words.living import Launch, StoredSandbox, TerminalSize
from tests.support.agents import SMALL, Agent, agent, ran
from tests.support.deployment import PATIENCE_S, Deployment


@pytest.fixture
async def me(shared: Deployment, request: pytest.FixtureRequest) -> AsyncIterator[Agent]:
    name = request.node.name.removeprefix("test_").replace("_", "-")
    async with agent(shared, name[:60].rstrip("-")) as made:
        yield made


async def bytes_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def until(life: Life, me: Agent, sandbox: UUID) -> StoredSandbox:
    """Wait until it has this state."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await me.living.read(me.caller, sandbox)).state is not life:  # noqa: ASYNC110 - rows tell nobody
            await asyncio.sleep(0.05)
    return found


async def recorded(
    me: Agent, enough: Callable[[list[dict[str, Any]]], object]
) -> list[dict[str, Any]]:
    """Return the tenant's audit records once they are enough: they are written in batches."""
    async with asyncio.timeout(PATIENCE_S):
        while not enough(found := await me.records()):  # noqa: ASYNC110 - rows tell nobody
            await asyncio.sleep(0.05)
    return found


async def test_from_its_making_to_its_end(me: Agent, shared: Deployment) -> None:
    """Create, run, output, files, kill."""
    made = await me.living.create(me.caller, SMALL)
    assert made.state is Life.RUNNING
    hello = await me.run(made.id, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (hello.stdout, hello.stderr) == (b"out\n", b"err\n")
    assert hello.end is not None
    assert (hello.end.exit_code, hello.end.signal, hello.end.output_bytes) == (3, None, 8)
    written = await me.using.write_file(me.caller, made.id, "a/b.txt", bytes_of(b"one", b"two"))
    assert (written.size, written.kind) == (6, "file")
    assert (await me.run(made.id, "cat", "a/b.txt")).stdout == b"onetwo"
    async with me.using.read_file(me.caller, made.id, "a/b.txt", offset=2, length=3) as file:
        assert [chunk async for chunk in file.chunks()] == [b"etw"]
    listing = await me.using.list_files(me.caller, made.id, ".", depth=2)
    assert {each.path for each in listing.files} >= {"/workspace/a", "/workspace/a/b.txt"}
    ended = await me.living.kill(me.caller, made.id)
    assert (ended.state, ended.reason) == (Life.ENDED, EndReason.KILLED)
    with pytest.raises(Gone):
        await me.run(made.id, "true")
    actions = [each["action"] for each in await me.records()]
    assert [each for each in actions if str(each).startswith("sandbox:")][:2] == [
        "sandbox:create",
        "sandbox:start",
    ]
    assert {"sandbox:processes", "sandbox:files", "sandbox:kill", "sandbox:end"} <= set(actions)


async def test_what_is_made_ahead_lives_only_for_a_stored_row_that_asks_for_it(
    me: Agent, shared: Deployment
) -> None:
    """It is removed if the caller hangs up, and if the row asks for another spec."""
    made = await me.living.create(me.caller, SMALL)
    client = docker.APIClient(shared.stack.settings.docker_url, version="auto", timeout=30)

    def containers() -> int:
        """Return how many were started for this tenant, and not for the stock."""
        return len(client.containers(filters={"label": f"runner.tenant={me.caller.tenant_id}"}))

    async def until_there_are(number: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await asyncio.to_thread(containers) != number:  # noqa: ASYNC110 - Docker's
                await asyncio.sleep(0.1)

    def ahead(pids: int) -> Creation:
        """Begin to make one of a spec that the stock does not have."""
        spec = replace(made.spec, resources=replace(made.spec.resources, pids=pids))

        async def knock() -> Knock:
            found = await me.living.places.knock(me.caller, made.id)
            return replace(found, sandbox_id=new_id())

        return me.living.door.create_ahead(knock(), spec)

    try:
        before = containers()
        given_up = ahead(77)
        await until_there_are(before + 1)
        await given_up.close()
        await until_there_are(before)
        without_row = ahead(78)
        await until_there_are(before + 1)
        with pytest.raises(SandboxEnded):
            await without_row.stored()
        await without_row.close()
        await until_there_are(before)
        assert (await me.run(made.id, "echo", "here")).stdout == b"here\n"
    finally:
        client.close()


async def test_environment_and_folder_are_the_sandboxs_and_the_processs(me: Agent) -> None:
    order = replace(SMALL, env={"A": "sandbox", "B": "sandbox"})
    made = await me.living.create(me.caller, order)
    found = await me.run(made.id, "sh", "-c", "echo $A $B; pwd", env={"B": "process"}, cwd="/usr")
    assert found.stdout == b"sandbox process\n/usr\n"


async def test_input_reaches_a_process_and_its_end_does(me: Agent) -> None:
    made = await me.living.create(me.caller, SMALL)
    async with me.using.start(me.caller, made.id, Launch(("cat",), stdin=True)) as cat:
        await cat.send(b"hello ")
        await me.using.write_stdin(me.caller, made.id, cat.process.number, bytes_of(b"there"))
        await cat.finish()
        found = ran(cat.process, [each async for each in cat.output()], cat.end)
    assert found.stdout == b"hello there"


async def test_a_process_goes_on_when_its_starter_leaves(me: Agent) -> None:
    made = await me.living.create(me.caller, SMALL)
    launch = Launch(("sh", "-c", "sleep 1; echo done"), tag="nap")
    async with me.using.start(me.caller, made.id, launch) as left:
        number = left.process.number
    (running,) = await me.using.processes(me.caller, made.id)
    assert (running.number, running.tag, running.end) == (number, "nap", None)
    ended = await me.using.process(me.caller, made.id, number, wait=True)
    assert ended.end is not None and ended.end.exit_code == 0
    whole = await me.read(made.id, number)
    assert whole.stdout == b"done\n"
    assert (await me.read(made.id, number, offset=2)).stdout == b"ne\n"
    await me.using.forget(me.caller, made.id, number)
    with pytest.raises(NotFound):
        await me.using.process(me.caller, made.id, number)


async def test_a_process_ends_when_its_time_is_up_with_its_group(me: Agent) -> None:
    made = await me.living.create(me.caller, SMALL)
    found = await me.run(made.id, "sh", "-c", "sleep 60 & sleep 60", timeout_s=0.5)
    assert found.end is not None
    assert (found.end.signal, found.end.timed_out) == (signal.SIGKILL, True)
    # All are sent the signal at once; the kernel may need a moment more to end the last of them.
    left = await me.run(made.id, "sh", "-c", "while pgrep sleep >&2; do :; done", timeout_s=60)
    assert left.end is not None and left.end.exit_code == 0


async def test_a_signal_reaches_a_process(me: Agent) -> None:
    made = await me.living.create(me.caller, SMALL)
    launch = Launch(("sh", "-c", "trap 'echo got; exit 7' TERM; echo up; sleep 60 & wait"))
    async with me.using.start(me.caller, made.id, launch) as stream:
        output = stream.output()
        assert (await anext(output)) is not None
        await me.using.signal(me.caller, made.id, stream.process.number, signal.SIGTERM)
        rest = [each async for each in output]
    found = ran(stream.process, rest, stream.end)
    assert found.stdout == b"got\n"
    assert found.end is not None and found.end.exit_code == 7


async def test_a_terminal_has_the_size_it_was_given(me: Agent) -> None:
    made = await me.living.create(me.caller, SMALL)
    launch = Launch(
        ("sh", "-c", "stty size; read x; stty size"), stdin=True, terminal=TerminalSize(24, 80)
    )
    async with me.using.start(me.caller, made.id, launch) as stream:
        output = stream.output()
        first = await anext(output)
        await me.using.resize(me.caller, made.id, stream.process.number, TerminalSize(30, 100))
        await stream.send(b"\n")
        rest = [each async for each in output]
    text = ran(stream.process, [first, *rest], stream.end).stdout
    assert b"24 80" in text and b"30 100" in text


async def test_what_the_kernel_refuses_is_told_by_its_name(me: Agent) -> None:
    made = await me.living.create(me.caller, SMALL)
    with pytest.raises(FileRefused) as refused:
        await me.run(made.id, "no-such-program")
    assert refused.value.errno_name == "ENOENT"
    with pytest.raises(FileRefused):
        await me.using.stat_file(me.caller, made.id, "nothing")
    with pytest.raises(FileRefused):
        async with me.using.dial(me.caller, made.id, 4999):
            pass


async def test_an_upload_that_breaks_off_leaves_nothing(me: Agent) -> None:
    made = await me.living.create(me.caller, SMALL)

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise ConnectionError("the client has gone")

    with pytest.raises(ConnectionError):
        await me.using.write_file(me.caller, made.id, "half", broken())
    async with asyncio.timeout(PATIENCE_S):
        while (await me.using.list_files(me.caller, made.id, ".")).files:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_port_inside_is_dialled(me: Agent) -> None:
    """Its bytes are counted while the connection is open."""
    made = await me.living.create(me.caller, SMALL)
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 5000)); print('up', flush=True)\n"
        "c, _ = s.accept(); c.sendall(c.recv(9).upper()); c.close()"
    )
    async with me.using.start(me.caller, made.id, Launch(("python3", "-c", code))) as stream:
        await anext(stream.output())
        async with me.using.dial(me.caller, made.id, 5000) as port:
            await port.send(b"hello")
            await port.finish()
            assert await port.receive() == b"HELLO"
            used = await me.using.metrics(me.caller, made.id)
            assert (used.port_bytes_in, used.port_bytes_out) == (5, 5)
            assert await port.receive() == b""


async def test_changes_below_a_folder_are_told(me: Agent) -> None:
    made = await me.living.create(me.caller, SMALL)
    async with me.using.watch_files(me.caller, made.id, ".") as watch:
        await me.run(made.id, "touch", "new")
        async with asyncio.timeout(PATIENCE_S):
            seen = await anext(watch.changes())
    assert next(each.path for each in seen.changes).endswith("new")


async def test_a_sandbox_ends_when_its_time_is_up(me: Agent) -> None:
    """Whoever listens to it then learns why."""
    made = await me.living.create(me.caller, replace(SMALL, timeout_s=60))
    async with me.using.start(me.caller, made.id, Launch(("sleep", "600"))) as stream:
        await me.living.update(me.caller, made.id, LifeChange(sets_timeout=True, timeout_s=0.2))
        with pytest.raises(SandboxEnded, match="its time was up"):
            async for _ in stream.output():
                pass
    ended = await until(Life.ENDED, me, made.id)
    assert ended.reason is EndReason.EXPIRED


async def test_its_time_may_be_set_anew(me: Agent) -> None:
    made = await me.living.create(me.caller, replace(SMALL, timeout_s=60))
    longer = LifeChange(sets_timeout=True, timeout_s=600)
    changed = await me.living.update(me.caller, made.id, longer)
    assert made.expires_at is not None and changed.expires_at is not None
    assert (changed.expires_at - made.expires_at).total_seconds() > 500
    await me.living.update(me.caller, made.id, LifeChange(sets_timeout=True, timeout_s=0.2))
    await until(Life.ENDED, me, made.id)


async def test_when_its_time_is_up_it_is_paused_if_it_was_so_ordered(me: Agent) -> None:
    order = replace(SMALL, timeout_s=1.0, on_timeout=OnTimeout.PAUSE)
    made = await me.living.create(me.caller, order)
    await until(Life.PAUSED, me, made.id)
    with pytest.raises(Conflict):
        await me.run(made.id, "true")
    await me.living.resume(me.caller, made.id)
    await until(Life.PAUSED, me, made.id)
    await me.living.update(me.caller, made.id, LifeChange(sets_timeout=True, timeout_s=600))
    await me.living.resume(me.caller, made.id)
    assert (await me.run(made.id, "echo", "again")).stdout == b"again\n"


async def test_paused_it_stands_still_and_goes_on_where_it_was(me: Agent) -> None:
    made = await me.living.create(me.caller, SMALL)
    code = "import time\nfor n in range(40): print(n, flush=True); time.sleep(0.05)"
    async with me.using.start(me.caller, made.id, Launch(("python3", "-c", code))) as stream:
        output = stream.output()
        await anext(output)
        await me.living.pause(me.caller, made.id)
        before = time.monotonic()
        await asyncio.sleep(1)
        await me.living.resume(me.caller, made.id)
        rest = [each async for each in output]
    assert time.monotonic() - before > 1
    assert ran(stream.process, rest, stream.end).stdout.endswith(b"38\n39\n")


async def test_it_can_be_killed_while_it_is_paused(me: Agent) -> None:
    made = await me.living.create(me.caller, SMALL)
    await me.living.pause(me.caller, made.id)
    ended = await me.living.kill(me.caller, made.id)
    assert (ended.state, ended.reason) == (Life.ENDED, EndReason.KILLED)


async def test_of_another_tenants_sandbox_the_node_tells_nothing(me: Agent) -> None:
    """This holds even for an API that signs for it. The control is its own tenant."""
    made = await me.living.create(me.caller, SMALL)
    knock = await me.using.places.locate(me.caller, made.id)
    assert await me.using.door.processes(knock) == ()
    with pytest.raises(SandboxEnded):
        await me.using.door.processes(replace(knock, tenant_id=new_id()))


async def test_killing_pid_1_ends_it_as_lost(me: Agent, shared: Deployment) -> None:
    made = await me.living.create(me.caller, SMALL)
    (row,) = shared.sql("SELECT guest FROM sandboxes WHERE sandbox_id = %s", made.id)
    client = docker.APIClient(shared.stack.settings.docker_url, version="auto", timeout=30)
    client.kill(row["guest"]["container_id"])
    client.close()
    ended = await until(Life.ENDED, me, made.id)
    assert ended.reason is EndReason.LOST


async def test_secrets_are_given_and_starred(me: Agent, shared: Deployment) -> None:
    """This holds for reading from any byte. The control: other text is shown."""
    shared.client(me.name).put_secret("token", "sk-4f9c2a7e81d3b650")
    order = replace(SMALL, secret_env={"TOKEN": "token"}, env={"OPEN": "not-a-secret-at-all"})
    made = await me.living.create(me.caller, order)
    said = await me.run(made.id, "sh", "-c", 'echo "$TOKEN $OPEN"; test ${#TOKEN} = 19')
    assert said.stdout == b"*" * 19 + b" not-a-secret-at-all\n"
    assert said.end is not None and said.end.exit_code == 0
    assert (await me.read(made.id, said.process.number, offset=9)).stdout == said.stdout[9:]


async def test_what_was_done_is_on_record_soon_and_not_its_content(me: Agent) -> None:
    made = await me.living.create(me.caller, SMALL)
    exits = await me.run(made.id, "sh", "-c", "exit 4", env={"KEPT": "out of it"})
    number = exits.process.number
    await me.using.write_file(me.caller, made.id, "named", bytes_of(b"12345"))
    words = ("'ended'", "'written'")
    found = await recorded(me, lambda told: all(word in str(told) for word in words))
    records = [each for each in found if each["resource_id"] == str(made.id)]
    facts = [each["metadata"] for each in records]
    assert {"started": [{"arguments": 2, "number": number, "program": "sh"}]} in facts
    assert {"written": 1, "bytes_written": 5} in facts
    ended = next(each for each in facts if isinstance(each, dict) and "ended" in each)
    assert ended["ended"][0]["exit_code"] == 4
    by = {each["actor"] for each in records if each["action"] == "sandbox:files"}
    assert by == {"key:test"}
    assert "exit 4" not in str(records) and "out of it" not in str(records)


async def test_more_processes_than_are_remembered(me: Agent) -> None:
    """The oldest that have ended are forgotten, those that run are not."""
    made = await me.living.create(me.caller, SMALL)
    async with me.using.start(me.caller, made.id, Launch(("sleep", "600"))) as first:
        pass
    for _ in range(27):
        await asyncio.gather(*(me.run(made.id, "true") for _ in range(10)))
    known = await me.using.processes(me.caller, made.id)
    assert len(known) == 257
    assert known[0].number == first.process.number
    assert known[-1].end is not None


async def test_what_it_uses_is_told(me: Agent) -> None:
    made = await me.living.create(me.caller, SMALL)
    found = await me.using.metrics(me.caller, made.id)
    assert found.cpu_s is not None and found.cpu_s > 0
    assert found.memory_bytes is not None and found.memory_bytes > 0
    assert found.pids is not None and found.pids >= 1


async def test_memory_of_the_whole_sandbox(me: Agent) -> None:
    """One process that takes too much is ended, and the sandbox lives on."""
    made = await me.living.create(me.caller, SMALL)
    found = await me.run(
        made.id, "python3", "-c", "x = bytearray(2**32)\nfor i in range(0, 2**32, 4096): x[i] = 1"
    )
    assert found.end is not None and found.end.exit_code != 0
    assert (await me.run(made.id, "echo", "here")).stdout == b"here\n"


async def test_a_slow_reader_stops_nobody_else(me: Agent) -> None:
    made = await me.living.create(me.caller, SMALL)
    async with me.using.start(me.caller, made.id, Launch(("yes",))) as unread:
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(5):
                assert (await me.run(made.id, "echo", "soon")).stdout == b"soon\n"
        await me.using.signal(me.caller, made.id, unread.process.number, signal.SIGKILL)


async def test_a_suspended_tenants_sandboxes_end(me: Agent, shared: Deployment) -> None:
    made = await me.living.create(me.caller, SMALL)
    shared.sql(
        "UPDATE tenants SET suspended_at = now(), suspended_why = 'test' WHERE tenant_id = %s",
        me.caller.tenant_id,
    )
    ended = await until(Life.ENDED, me, made.id)
    assert ended.reason is EndReason.TENANT_SUSPENDED
    shared.sql(
        "UPDATE tenants SET suspended_at = NULL, suspended_why = NULL WHERE tenant_id = %s",
        me.caller.tenant_id,
    )


async def test_one_that_another_says_is_lost_is_ended_here(me: Agent, shared: Deployment) -> None:
    """Its row has ended, so at the next renewal nothing of it runs any more."""
    made = await me.living.create(me.caller, SMALL)
    knock = await me.using.places.locate(me.caller, made.id)
    shared.sql(
        "UPDATE sandboxes SET state = 'ended', reason = 'lost', ended_at = now(), guest = NULL, "
        "lease_until = NULL WHERE sandbox_id = %s",
        made.id,
    )
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await me.using.door.processes(knock)
            except SandboxEnded:
                break
            await asyncio.sleep(0.2)


async def test_a_lease_that_ran_out_while_the_database_was_away_ends_nothing(
    me: Agent, shared: Deployment
) -> None:
    made = await me.living.create(me.caller, SMALL)
    shared.sql(
        "UPDATE sandboxes SET lease_until = now() - interval '1 second' WHERE sandbox_id = %s",
        made.id,
    )
    renewed = "SELECT 1 FROM sandboxes WHERE sandbox_id = %s AND lease_until > now()"
    async with asyncio.timeout(PATIENCE_S):
        while not shared.sql(renewed, made.id):  # noqa: ASYNC110 - rows tell nobody
            await asyncio.sleep(0.2)
    assert (await me.run(made.id, "echo", "here")).stdout == b"here\n"


async def test_one_whose_node_does_not_come_back_is_lost(me: Agent, shared: Deployment) -> None:
    made = await me.living.create(me.caller, SMALL)
    lost = new_id()
    shared.sql(
        "INSERT INTO sandboxes (tenant_id, sandbox_id, state, created_by, on_timeout, image, size, "
        "resources, isolation, egress, env, secret_env, metadata, node, instance, lease_until) "
        "SELECT tenant_id, %s, 'running', created_by, on_timeout, image, size, resources, "
        "isolation, egress, env, secret_env, metadata, 'gone', 'gone', now() - interval '1 s' "
        "FROM sandboxes WHERE sandbox_id = %s",
        lost,
        made.id,
    )
    ended = await until(Life.ENDED, me, lost)
    assert ended.reason is EndReason.LOST


@dataclass(frozen=True)
class Back:
    """In how many seconds a worker was ready after its start, and in how many all answered."""

    ready_s: float
    all_s: float

    @property
    def soon(self) -> bool:
        """Whether all answered in the time that a worker needs to start, or little more.

        A host that is busy with other things takes longer for both.
        """
        return self.all_s < max(5.0, 2 * self.ready_s)


async def answers_after_restart(own: Deployment, me: Agent, sandboxes: list[StoredSandbox]) -> Back:
    """Start the worker, which was killed; return when it was ready and when all answered."""
    restarted = time.monotonic()
    # From this thread: the worker dies with the thread that has started it (prctl(2)).
    own.restart_worker()

    async def until_ready() -> float:
        while health.problems(  # noqa: ASYNC110 - a file tells nobody
            own.stack.settings.run_dir, own.worker.pid
        ):
            await asyncio.sleep(0.02)
        return time.monotonic() - restarted

    ready = asyncio.create_task(until_ready())
    for each in sandboxes:
        while True:
            try:
                await me.run(each.id, "true")
                break
            except NodeAway:
                await asyncio.sleep(0.05)
    all_s = time.monotonic() - restarted
    async with asyncio.timeout(60):
        return Back(await ready, all_s)


@pytest.mark.alone
async def test_sandboxes_outlive_their_worker(own: Deployment) -> None:
    """After SIGKILL, the processes continue, no output is lost, and all is back at once."""
    async with agent(own, "outlives") as me:
        made = [await me.living.create(me.caller, SMALL) for _ in range(3)]
        code = "import time\nfor n in range(60): print(n, flush=True); time.sleep(0.1)"
        numbers = []
        for each in made:
            async with me.using.start(me.caller, each.id, Launch(("python3", "-c", code))) as s:
                numbers.append(s.process.number)
        await me.living.pause(me.caller, made[2].id)
        await asyncio.sleep(1)
        await asyncio.to_thread(own.portal.call, own.worker.stop, signal.SIGKILL)
        with pytest.raises(NodeAway):
            await me.run(made[0].id, "true")
        back = await answers_after_restart(own, me, made[:2])
        expected = "".join(f"{n}\n" for n in range(60)).encode()
        for each, number in zip(made[:2], numbers[:2], strict=True):
            whole = await me.read(each.id, number)
            assert (whole.stdout, whole.gaps) == (expected, ())
        assert (await me.living.read(me.caller, made[2].id)).state is Life.PAUSED
        async with asyncio.timeout(20):
            while True:
                try:
                    await me.living.resume(me.caller, made[2].id)
                    break
                except NodeAway:
                    await asyncio.sleep(0.05)
        assert (await me.read(made[2].id, numbers[2])).stdout == expected
        if not back.soon:  # Once, the host may have had something else to do.
            await asyncio.to_thread(own.portal.call, own.worker.stop, signal.SIGKILL)
            back = await answers_after_restart(own, me, made[:2])
        assert back.soon, back


async def test_what_it_reaches_is_decided_and_on_record(me: Agent) -> None:
    """The proxy knows it by its socket; without rules, it has no egress at all."""
    fetch = "curl -s -o /dev/null -w '%{http_code}' http://refused.test/"
    none = await me.living.create(me.caller, SMALL)
    assert (await me.run(none.id, "sh", "-c", fetch)).stdout == b"000"
    made = await me.living.create(me.caller, replace(SMALL, egress=("allowed.test",)))
    assert (await me.run(made.id, "sh", "-c", fetch)).stdout == b"403"
    found = await recorded(me, lambda told: "egress:connect" in str(told))
    (decided,) = [each for each in found if each["action"] == "egress:connect"]
    assert (decided["actor"], decided["outcome"]) == (f"sandbox:{made.id}", "denied")


async def test_a_secret_that_it_asks_for_by_name_is_starred_on_record(
    me: Agent, shared: Deployment
) -> None:
    """The record of its end says how much it requested in all."""
    shared.client(me.name).put_secret("token", "sk-4f9c2a7e81d3b650")
    order = replace(SMALL, egress=("allowed.test",), secret_env={"TOKEN": "token"})
    made = await me.living.create(me.caller, order)
    await me.run(made.id, "sh", "-c", 'curl -s "http://$TOKEN.test/"')
    await me.living.kill(me.caller, made.id)
    records = [each for each in await me.records() if each["action"] != "secret:use"]
    (decided,) = [each for each in records if each["action"] == "egress:connect"]
    assert f"'host': '{'*' * 19}.test'" in str(decided)
    (ended,) = [each for each in records if each["action"] == "sandbox:end"]
    assert "'denied': 1" in str(ended)
    assert "sk-4f9c2a7e81d3b650" not in str(records)


async def test_a_row_that_stands_for_nothing_is_ended(me: Agent, shared: Deployment) -> None:
    """For example, its end could not be written. The control is one that lives."""
    made = await me.living.create(me.caller, SMALL)
    nothing = new_id()
    shared.sql(
        "INSERT INTO sandboxes (tenant_id, sandbox_id, state, created_by, on_timeout, image, size, "
        "resources, isolation, egress, env, secret_env, metadata, node, instance, guest, "
        "lease_until) SELECT tenant_id, %s, 'running', created_by, on_timeout, image, size, "
        "resources, isolation, egress, env, secret_env, metadata, node, instance, "
        "jsonb_set(jsonb_set(guest, '{container_id}', '\"nothing\"'), '{sandbox_id}', '\"none\"'), "
        "now() + interval '1 hour' FROM sandboxes WHERE sandbox_id = %s",
        nothing,
        made.id,
    )
    ended = await until(Life.ENDED, me, nothing)
    assert ended.reason is EndReason.LOST
    assert (await me.run(made.id, "echo", "here")).stdout == b"here\n"


async def test_a_caller_that_vanishes_leaves_its_process_alone(me: Agent) -> None:
    """Its connection breaks off in the middle of output, as with a killed API."""
    made = await me.living.create(me.caller, SMALL)
    launch = Launch(
        ("sh", "-c", "i=0; while [ $i -lt 50 ]; do echo $i; i=$((i+1)); sleep 0.02; done")
    )
    async with me.using.start(me.caller, made.id, launch) as stream:
        await anext(stream.output())
    whole = await me.read(made.id, stream.process.number)
    assert whole.stdout == b"".join(b"%d\n" % n for n in range(50))
    assert whole.gaps == ()
