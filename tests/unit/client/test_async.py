"""The SDK's asynchronous half lets the event loop go on, and leaves it when cancelled."""

import asyncio
import io
import json
import tarfile
from pathlib import Path

import httpx
import pytest

from agent_runner import AsyncClient, AsyncProcess, AsyncSandbox, UnsafeArchive
from agent_runner._async import local
from agent_runner.living_answers import PROCESS, SANDBOX
from tests.support.answering import Request, reply, served
from tests.unit.client.test_strangers import ID, KEY, LIVES, STARTED

WITHIN_S = 30.0


def archive(**files: bytes) -> bytes:
    """Return an archive of these files."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return raw.getvalue()


class Source:
    """An archive that comes up to a point, and then not for as long as nobody lets it go on."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.waits = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __aiter__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204 - an iterator of bytes
        """Yield the first piece at once, and the others when they may."""
        yield self._pieces[0]
        self.waits.set()
        await self.go_on.wait()
        for piece in self._pieces[1:]:
            yield piece


async def test_a_folder_is_unpacked_while_the_loop_goes_on(tmp_path: Path) -> None:
    raw = archive(first=b"1" * 2000, second=b"2" * 2000)
    source = Source(raw[:3000], raw[3000:])
    unpacking = asyncio.ensure_future(
        local.unpacked(aiter(source), tmp_path / "to", most_bytes=10**6)
    )
    await asyncio.wait_for(source.waits.wait(), WITHIN_S)
    source.go_on.set()
    await asyncio.wait_for(unpacking, WITHIN_S)
    assert (tmp_path / "to" / "second").read_bytes() == b"2" * 2000


async def test_nothing_is_written_once_unpacking_is_cancelled(tmp_path: Path) -> None:
    """Its thread has ended when the cancellation arrives: what is there stays as it is."""
    raw = archive(first=b"1" * 2000, second=b"2" * 2000)
    source = Source(raw[:3000], raw[3000:])
    unpacking = asyncio.ensure_future(
        local.unpacked(aiter(source), tmp_path / "to", most_bytes=10**6)
    )
    await asyncio.wait_for(source.waits.wait(), WITHIN_S)
    unpacking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(unpacking, WITHIN_S)
    source.go_on.set()
    assert not (tmp_path / "to" / "second").exists()


async def test_what_is_wrong_with_an_archive_is_told(tmp_path: Path) -> None:
    source = Source(b"no archive at all", b"")
    source.go_on.set()
    with pytest.raises(UnsafeArchive):
        await local.unpacked(aiter(source), tmp_path / "to", most_bytes=10**6)


async def test_a_file_is_sent_with_its_size_from_where_it_stands(tmp_path: Path) -> None:
    """The API takes no stored file without."""
    sent: list[tuple[str | None, bytes]] = []
    (tmp_path / "file").write_bytes(b"head" + b"x" * 700_000)

    def answer(request: Request) -> None:
        sent.append((request.headers["Content-Length"], request.body))
        reply(request, 404, b"{}", "application/json")

    with served(answer) as url, (tmp_path / "file").open("rb") as file:
        file.seek(4)
        async with AsyncClient(url, KEY) as api:
            with pytest.raises(Exception, match="404"):
                await api.files.put("a", file)
    assert sent == [("700000", b"x" * 700_000)]


async def test_requests_of_several_tasks_are_under_way_at_once() -> None:
    """Each is answered only after all have come."""
    arrived = asyncio.Barrier(3)
    loop = asyncio.get_running_loop()

    def answer(request: Request) -> None:
        asyncio.run_coroutine_threadsafe(arrived.wait(), loop).result(WITHIN_S)
        reply(request, 200, json.dumps({"items": []}).encode(), "application/json")

    with served(answer) as url:
        async with AsyncClient(url, KEY) as api:
            assert await asyncio.gather(*(api.secrets() for _ in range(3))) == [[], [], []]


async def test_a_sandbox_is_killed_though_its_context_is_cancelled() -> None:
    """A timeout cancels in this way. A sandbox whose context fails is killed, too."""
    asked: list[str] = []
    waits = asyncio.Event()

    def answer(request: Request) -> None:
        asked.append(request.command)
        reply(request, 204, b"", "application/json")

    async def work(url: str) -> None:
        async with AsyncClient(url, KEY) as api, AsyncSandbox(api._http, SANDBOX.read(LIVES)):
            waits.set()
            await asyncio.Event().wait()

    with served(answer) as url:
        working = asyncio.ensure_future(work(url))
        await asyncio.wait_for(waits.wait(), WITHIN_S)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    assert asked == ["DELETE"]


async def test_output_that_is_left_early_closes_its_connection() -> None:
    """`contextlib.aclosing` does it at once, as it does for any asynchronous generator."""
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()
    event = b'id: 1\nevent: stdout\ndata: {"content": "x", "encoding": "utf-8"}\n\n'

    def answer(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.end_headers()
        request.wfile.write(event)
        request.wfile.flush()
        request.rfile.read(1)  # Ends as the client hangs up.
        loop.call_soon_threadsafe(closed.set)
        request.close_connection = True

    with served(answer) as url:
        async with AsyncClient(url, KEY) as api:
            path = f"/v1/sandboxes/{ID}/processes"
            process = AsyncProcess(api._http, path, PROCESS.read(STARTED))
            async for each in process.output():
                assert each.raw == b"x"
                break
            await asyncio.wait_for(closed.wait(), WITHIN_S)
            assert isinstance(api._http, httpx.AsyncClient)
