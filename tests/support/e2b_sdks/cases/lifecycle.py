"""A sandbox's life: made, found, listed, paused, copied, ended; its ports and its network."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.request import Request, urlopen

from tests.support.e2b_sdks.case import Cases
from tests.support.e2b_sdks.world import World

CASES = Cases()
WITHIN_S = 60.0
UNKNOWN = "00000000000000000000000000000000"
PORT = 8123
NO_WAY = frozenset({"000", "403"})
"""How the way out is closed: there is none, or it is refused."""
A_WAY = frozenset({"502", "504"})
"""How it is open: it is the server that is missing."""


async def becomes(what: Callable[[], Awaitable[Any]]) -> Any:
    """Return what an operation returns once it is true."""
    deadline = time.monotonic() + WITHIN_S
    while not (found := await what()):
        assert time.monotonic() < deadline, f"still {found!r}"
        await asyncio.sleep(0.1)
    return found


def state(info: Any) -> str:
    """Return the state of a sandbox as text."""
    return str(getattr(info.state, "value", info.state))


async def listed(w: World, **options: Any) -> list[Any]:
    """Return all pages of a list of sandboxes."""
    pages = w.Sandbox.list(**options)
    found: list[Any] = []
    while pages.has_next:
        found += await w(pages.next_items())
    return found


@CASES.case()
async def created_and_killed(w: World) -> None:
    box = await w(w.Sandbox.create(timeout=60))
    assert box.sandbox_id
    assert await w(box.is_running()) is True
    assert await w(box.kill()) is True
    assert await w(box.is_running()) is False
    assert await w(box.kill()) is False
    assert await w(w.Sandbox.kill(box.sandbox_id)) is False
    await w.raises("NotFoundException", lambda: w.Sandbox.connect(box.sandbox_id))
    await w.raises("TimeoutException", lambda: box.commands.run("true"))


@CASES.case()
async def created_with_environment(w: World) -> None:
    async with w.own(envs={"GIVEN": "to all"}) as box:
        done = await w(box.commands.run('echo "$GIVEN $OWN"', envs={"OWN": "to one"}))
        assert done.stdout == "to all to one\n"


@CASES.case()
async def connected_to(w: World) -> None:
    await w(w.box.files.write("from-before", "the same sandbox"))
    again = await w(w.Sandbox.connect(w.box.sandbox_id))
    assert again.sandbox_id == w.box.sandbox_id
    assert await w(again.files.read("from-before")) == "the same sandbox"
    assert (await w(again.commands.run("echo here"))).stdout == "here\n"
    await w.raises("NotFoundException", lambda: w.Sandbox.connect(UNKNOWN))


@CASES.case()
async def described(w: World) -> None:
    async with w.own(metadata={"about": "this"}, timeout=60) as box:
        info = await w(box.get_info())
        assert info.sandbox_id == box.sandbox_id
        assert (info.metadata, state(info)) == ({"about": "this"}, "running"), info
        assert 0 < (info.end_at - info.started_at).total_seconds() <= 61, info
        assert info.cpu_count >= 1
        assert info.memory_mb >= 128
        assert info.envd_version.count(".") == 2
        assert info.template_id
    await w.raises("NotFoundException", lambda: w.Sandbox.get_info(UNKNOWN))


@CASES.case("SandboxQuery")
async def listed_by_metadata_and_state(w: World) -> None:
    mark = uuid.uuid4().hex
    query, states = w.sdk.SandboxQuery, w.sdk.SandboxState
    async with (
        w.own(metadata={"mark": mark, "n": "1"}) as one,
        w.own(metadata={"mark": mark}) as two,
    ):
        found = await listed(w, query=query(metadata={"mark": mark}))
        assert {each.sandbox_id for each in found} == {one.sandbox_id, two.sandbox_id}
        (only,) = await listed(w, query=query(metadata={"mark": mark, "n": "1"}))
        assert (only.sandbox_id, only.metadata) == (one.sandbox_id, {"mark": mark, "n": "1"})
        pages = w.Sandbox.list(query=query(metadata={"mark": mark}), limit=1)
        first = await w(pages.next_items())
        assert (len(first), pages.has_next) == (1, True)
        second = await w(pages.next_items())
        assert {first[0].sandbox_id, second[0].sandbox_id} == {one.sandbox_id, two.sandbox_id}
        running = await listed(w, query=query(metadata={"mark": mark}, state=[states.RUNNING]))
        assert len(running) == 2
        paused = await listed(w, query=query(metadata={"mark": mark}, state=[states.PAUSED]))
        assert paused == []


@CASES.case("Sandbox.list:order")
async def listed_in_either_order(w: World) -> None:
    """A page at a time."""
    mark = uuid.uuid4().hex
    query = w.sdk.SandboxQuery(metadata={"mark": mark})
    async with w.own(metadata={"mark": mark}) as one, w.own(metadata={"mark": mark}) as two:
        ids = [one.sandbox_id, two.sandbox_id]
        for order, wanted in (("asc", ids), ("desc", ids[::-1])):
            found = await listed(w, query=query, order=order, limit=1)
            assert [each.sandbox_id for each in found] == wanted, order


@CASES.case("SandboxQuery:template")
async def listed_by_template(w: World) -> None:
    """By an image's name, with and without a tag; a name that nothing has lists none."""
    mark = uuid.uuid4().hex
    query = w.sdk.SandboxQuery
    async with w.own(template="base", metadata={"mark": mark}) as box:
        for template, wanted in (
            ("base", [box.sandbox_id]),
            ("base:default", [box.sandbox_id]),
            ("code-interpreter-v1", []),
            ("no-such-template", []),
            (UNKNOWN, []),
        ):
            asked = query(metadata={"mark": mark}, template=template)
            assert [each.sandbox_id for each in await listed(w, query=asked)] == wanted, template
        info = await w(box.get_info())
        assert (info.template_id, info.name) == ("base", "base")


@CASES.case("Template.exists", "Template.alias_exists")
async def template_exists(w: World) -> None:
    template = w.named("Template")
    assert await w(template.exists("base")) is True
    assert await w(template.exists("no-such-template")) is False
    assert await w(template.alias_exists("code-interpreter-v1")) is True


@CASES.case()
async def timeout_is_set(w: World) -> None:
    async with w.own(timeout=60) as box:
        before = (await w(box.get_info())).end_at
        await w(box.set_timeout(600))
        after = (await w(box.get_info())).end_at
        assert 500 < (after - before).total_seconds() < 600, (before, after)
        await w(w.Sandbox.set_timeout(box.sandbox_id, 30))
        assert (await w(box.get_info())).end_at < before


@CASES.case()
async def timeout_ends_it(w: World) -> None:
    async with w.own() as box:
        await w(box.set_timeout(1))

        async def ended() -> bool:
            return not await w(box.is_running())

        await becomes(ended)
        await w.raises("NotFoundException", lambda: w.Sandbox.connect(box.sandbox_id))


@CASES.case("Sandbox.pause")
async def paused_and_resumed(w: World) -> None:
    """Files, processes and metadata are there again."""
    mark = uuid.uuid4().hex
    async with w.own(metadata={"mark": mark}) as box:
        await w(box.files.write("kept", "over the pause"))
        running = await w(box.commands.run("exec sleep 600", background=True, timeout=0))
        await w(running.disconnect())
        await w(box.pause())
        info = await w(box.get_info())
        assert (state(info), info.metadata) == ("paused", {"mark": mark}), info
        query = w.sdk.SandboxQuery(metadata={"mark": mark}, state=[w.sdk.SandboxState.PAUSED])
        assert [each.sandbox_id for each in await listed(w, query=query)] == [box.sandbox_id]
        again = await w(w.Sandbox.connect(box.sandbox_id))
        assert await w(again.files.read("kept")) == "over the pause"
        assert running.pid in {each.pid for each in await w(again.commands.list())}
        assert (await w(again.get_info())).metadata == {"mark": mark}


@CASES.case("Sandbox.beta_pause")
async def paused_by_its_old_name(w: World) -> None:
    async with w.own() as box:
        await w(box.beta_pause())
        assert state(await w(box.get_info())) == "paused"


@CASES.case("Sandbox.pause")
async def paused_and_killed(w: World) -> None:
    async with w.own() as box:
        await w(box.pause())
        assert await w(box.kill()) is True
        await w.raises("NotFoundException", lambda: w.Sandbox.connect(box.sandbox_id))


@CASES.case("Sandbox.create:lifecycle")
async def timeout_pauses_it(w: World) -> None:
    async with w.own(lifecycle={"on_timeout": "pause"}) as box:
        await w(box.files.write("kept", "by the timeout"))
        await w(box.set_timeout(1))

        async def paused() -> bool:
            return state(await w(box.get_info())) == "paused"

        await becomes(paused)
        again = await w(w.Sandbox.connect(box.sandbox_id, timeout=60))
        assert await w(again.files.read("kept")) == "by the timeout"


@CASES.case("Sandbox.create:lifecycle")
async def use_resumes_it(w: World) -> None:
    async with w.own(lifecycle={"on_timeout": "pause", "auto_resume": True}) as box:
        await w(box.files.write("kept", "for its use"))
        await w(box.pause())
        assert await w(box.files.read("kept")) == "for its use"
        assert state(await w(box.get_info())) == "running"


@CASES.case("Sandbox.create_snapshot", "Sandbox.list_snapshots", "Sandbox.delete_snapshot")
async def copied_by_a_snapshot(w: World) -> None:
    async with w.own() as box:
        await w(box.files.write("copied", "as it was"))
        snapshot = await w(box.create_snapshot())
        await w(box.files.write("copied", "changed since"))
        pages = box.list_snapshots()
        assert snapshot.snapshot_id in {each.snapshot_id for each in await w(pages.next_items())}
        async with w.own(template=snapshot.snapshot_id) as copy:
            assert copy.sandbox_id != box.sandbox_id
            assert await w(copy.files.read("copied")) == "as it was"
        assert await w(w.Sandbox.delete_snapshot(snapshot.snapshot_id)) is True
        assert await w(w.Sandbox.delete_snapshot(snapshot.snapshot_id)) is False


@CASES.case("Sandbox.fork")
async def forked(w: World) -> None:
    async with w.own() as box:
        await w(box.files.write("copied", "to each"))
        forks = await w(box.fork(count=2, timeout=60))
        try:
            assert not [each for each in forks if isinstance(each, Exception)], forks
            assert len({box.sandbox_id, *(each.sandbox_id for each in forks)}) == 3
            for each in forks:
                assert await w(each.files.read("copied")) == "to each"
            await w(forks[0].files.write("copied", "its own"))
            assert await w(forks[1].files.read("copied")) == "to each"
            assert await w(box.files.read("copied")) == "to each"
        finally:
            for each in forks:
                if not isinstance(each, Exception):
                    await w(each.kill())


@CASES.case("Sandbox.get_metrics")
async def measured(w: World) -> None:
    async def samples() -> Any:
        return await w(w.box.get_metrics())

    (sample, *_) = await becomes(samples)
    assert sample.cpu_count >= 1
    assert 0 < sample.mem_used <= sample.mem_total, sample
    assert 0 <= sample.disk_used <= sample.disk_total, sample
    assert sample.cpu_used_pct >= 0


@CASES.case()
async def port_has_a_host(w: World) -> None:
    box = w.box
    await w(box.files.write("served/page.txt", "from inside"))
    server = await w(
        box.commands.run(
            f"exec python3 -m http.server --bind 127.0.0.1 {PORT}",
            background=True, cwd="served", timeout=0,
        )
    )  # fmt: skip
    host = box.get_host(PORT)
    assert host == f"{PORT}-{box.sandbox_id}.{w.given('PORTS_DOMAIN')}", host
    request = Request(f"{w.given('API')}/page.txt", headers={"Host": host, **traffic(box)})  # noqa: S310

    async def page() -> bytes:
        return await asyncio.to_thread(fetched, request)

    assert await becomes(page) == b"from inside"
    await w(server.kill())


def traffic(box: Any) -> dict[str, str]:
    """Return the header that opens a sandbox's ports, if it has one."""
    token = box.traffic_access_token
    return {"E2B-Traffic-Access-Token": token} if token else {}


def fetched(request: Request) -> bytes:
    """Return what a server answers; nothing while it does not listen."""
    try:
        with urlopen(request, timeout=10) as answer:  # noqa: S310 - the deployment
            return bytes(answer.read())
    except OSError:
        return b""


async def reaches(w: World, box: Any, host: str) -> str:
    """Return the status with which the way out to a host is opened, or not."""
    ask = f"curl -s -o /dev/null -w '%{{http_connect}}' https://{host}/ || true"
    return str((await w(box.commands.run(ask))).stdout)


@CASES.case()
async def internet_is_off_by_default(w: World) -> None:
    assert await reaches(w, w.box, w.given("OPEN_HOST")) in NO_WAY


@CASES.case("Sandbox.create:network")
async def network_rules_of_a_new_one(w: World) -> None:
    async with w.own(network={"allow_out": [w.given("OPEN_HOST")]}) as box:
        assert await reaches(w, box, w.given("OPEN_HOST")) in A_WAY
        assert await reaches(w, box, w.given("OTHER_HOST")) in NO_WAY


@CASES.case("Sandbox.update_network")
async def network_rules_are_changed(w: World) -> None:
    async with w.own() as box:
        assert await reaches(w, box, w.given("OPEN_HOST")) in NO_WAY
        await w(box.update_network({"allow_out": [w.given("OPEN_HOST")]}))
        assert await reaches(w, box, w.given("OPEN_HOST")) in A_WAY
        await w(box.update_network({"deny_out": ["0.0.0.0/0"]}))
        assert await reaches(w, box, w.given("OPEN_HOST")) in NO_WAY


@CASES.case("AuthenticationException")
async def key_is_wrong(w: World) -> None:
    key = "e2b_" + "0" * 40
    await w.raises("AuthenticationException", lambda: w.Sandbox.create(api_key=key))


@CASES.case()
async def others_do_not_find_it(w: World) -> None:
    """Another tenant's key knows nothing of it."""
    key = w.given("OTHER_KEY")
    await w.raises("NotFoundException", lambda: w.Sandbox.connect(w.box.sandbox_id, api_key=key))
    assert await w(w.Sandbox.kill(w.box.sandbox_id, api_key=key)) is False
    assert await listed(w, api_key=key) == []
