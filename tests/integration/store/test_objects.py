"""The object store over a local folder, and over S3 by a real HTTP server that speaks it."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from runner.base.settings import Settings
from runner.store import objects as store_objects
from runner.store.objects import CHUNK, PART, ObjectStore, new_key
from runner.words.errors import StoreUnavailable
from runner.words.ids import new_id
from tests.support.buckets import bucket

AT_ONCE = timedelta(0)
BIG = os.urandom(3 * PART + 7)


async def pieces(content: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    """Yield a content in pieces, like a request's body."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    """Return everything that was yielded, after checking that no piece was large."""
    found = bytearray()
    async for chunk in chunks:
        assert len(chunk) <= 16 * CHUNK
        found += chunk
    return bytes(found)


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    """Run an S3 server with a bucket in it; yield the settings that lead there."""
    with bucket() as settings:
        yield settings


@pytest.fixture(params=["local", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """Return each kind of store in turn."""
    if request.param == "local":
        return ObjectStore.open(Settings(state_dir=tmp_path))
    return ObjectStore.open(Settings(state_dir=tmp_path, **request.getfixturevalue("s3")))


@pytest.mark.parametrize("content", [b"", b"x", BIG], ids=["empty", "one byte", "several parts"])
async def test_what_was_written_is_read(objects: ObjectStore, content: bytes) -> None:
    """It is equal byte for byte, for any size."""
    key = new_key(new_id(), "files")
    await objects.write(key, pieces(content))
    assert await whole(objects.read(key)) == content


async def test_a_range_is_read_alone(objects: ObjectStore) -> None:
    """It is at the beginning, inside, or at the end; an empty object has an empty range."""
    key = new_key(new_id(), "files")
    await objects.write(key, pieces(BIG))
    for start, end in ((0, 1), (PART - 1, PART + 1), (len(BIG) - 3, len(BIG)), (5, 5)):
        assert await whole(objects.read(key, start, end)) == BIG[start:end]
    assert await whole(objects.read(key, len(BIG) - 3)) == BIG[-3:]


async def test_a_listing_is_of_one_tenant(objects: ObjectStore) -> None:
    """A removal is of one tenant, too: the other tenant's objects stay."""
    ours, theirs = new_id(), new_id()
    keys = {tenant: [new_key(tenant, "files") for _ in range(3)] for tenant in (ours, theirs)}
    for key in (*keys[ours], *keys[theirs]):
        await objects.write(key, pieces(b"x"))
    assert sorted([key async for some in objects.keys(ours) for key in some]) == sorted(keys[ours])
    assert await objects.remove_tenant(ours) == 3
    assert [some async for some in objects.keys(ours)] == []
    assert await whole(objects.read(keys[theirs][0])) == b"x"


async def test_what_is_removed_is_gone_and_may_be_removed_again(objects: ObjectStore) -> None:
    """For example, after a crash: removing what is gone is no error."""
    key = new_key(new_id(), "artifacts")
    await objects.write(key, pieces(b"x"))
    for _ in range(2):
        await objects.remove([key])
    with pytest.raises(StoreUnavailable):
        await whole(objects.read(key))


async def test_what_breaks_off_leaves_nothing(objects: ObjectStore) -> None:
    """No reader ever sees a part of an object."""

    async def breaking() -> AsyncIterator[bytes]:
        async for piece in pieces(BIG):
            yield piece
        raise RuntimeError("gone")

    tenant = new_id()
    key = new_key(tenant, "files")
    with pytest.raises(RuntimeError, match="gone"):
        await objects.write(key, breaking())
    assert [some async for some in objects.keys(tenant)] == []


async def test_wrong_credentials_say_nothing_of_themselves(tmp_path: Path) -> None:
    """An error names its type, but no addresses or keys."""
    objects = ObjectStore.open(
        Settings(
            state_dir=tmp_path,
            objects_url="s3://objects",
            objects_endpoint="http://127.0.0.1:9",
            objects_access_key=SecretStr("canary-key"),
            objects_secret_key=SecretStr("canary-secret"),
        )
    )
    with pytest.raises(StoreUnavailable) as refused:
        await objects.write(new_key(new_id(), "files"), pieces(b"x"))
    assert "canary" not in str(refused.value)
    assert "127.0.0.1" not in str(refused.value)


STALLS = b"HTTP/1.1 200 OK\r\nETag: e\r\nLast-Modified: Mon, 02 Nov 2026 00:00:00 GMT\r\n"


@pytest.mark.parametrize(
    "said", [b"", STALLS + b"Content-Length: 9\r\n\r\nxxx"], ids=["mute", "part"]
)
async def test_a_store_that_stalls_is_given_up(
    said: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither bound of the whole answer would end it: it is the silence that counts."""
    monkeypatch.setattr(store_objects, "STALLED", timedelta(seconds=1))
    kept: list[asyncio.StreamWriter] = []

    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        kept.append(writer)

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        objects = ObjectStore.open(
            Settings(
                state_dir=tmp_path,
                objects_url="s3://objects",
                objects_endpoint=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
                objects_access_key=SecretStr("key"),
                objects_secret_key=SecretStr("secret"),
            )
        )
        async with asyncio.timeout(600):
            with pytest.raises(StoreUnavailable):
                await whole(objects.read(new_key(new_id(), "files")))
        for writer in kept:
            writer.transport.abort()


async def test_nobody_else_may_enter_the_folder(tmp_path: Path) -> None:
    """Others may pass through the state folder, but cannot see the objects' names."""
    objects = ObjectStore.open(Settings(state_dir=tmp_path))
    await objects.write(new_key(new_id(), "files"), pieces(b"x"))
    assert (tmp_path / "objects").stat().st_mode & 0o777 == 0o700


KILLED = """
import asyncio, os, sys
from runner.base.settings import Settings
from runner.store.objects import PART, ObjectStore

async def endless():
    for _ in range(3):
        yield os.urandom(PART)
    print("writing", flush=True)
    await asyncio.sleep(60)
    yield b""

asyncio.run(ObjectStore.open(Settings()).write(sys.argv[1], endless()))
"""


@pytest.fixture
def killed(
    objects: ObjectStore, request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[str], None]:
    """Return a function that kills a process while it writes an object."""
    environment = {"PATH": "/usr/bin:/bin", "RUNNER_STATE_DIR": str(tmp_path)}
    if request.node.callspec.params["objects"] == "s3":
        s3 = request.getfixturevalue("s3")
        environment |= {f"RUNNER_{name.upper()}": value for name, value in s3.items()}

    def write(key: str) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, key], env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            time.sleep(0.5)
            process.kill()

    return write


async def test_what_a_killed_writer_left_is_found_and_removed(
    objects: ObjectStore, killed: Callable[[str], None]
) -> None:
    """No listing of objects shows it: the control is the listing."""
    tenant, other = new_id(), new_id()
    for each in (tenant, other):
        killed(new_key(each, "artifacts"))
    assert [some async for some in objects.keys(tenant)] == [], "the control"
    assert await objects.end_unfinished(AT_ONCE, tenant) == 1
    assert await objects.end_unfinished(AT_ONCE, tenant) == 0
    assert await objects.end_unfinished(AT_ONCE) == 1, "the other tenant's"


async def test_a_write_under_way_is_left_alone(tmp_path: Path) -> None:
    """It got bytes a moment ago, so it is left alone, and completes."""
    objects = ObjectStore.open(Settings(state_dir=tmp_path))
    key = new_key(new_id(), "files")
    ended = []

    async def slowly() -> AsyncIterator[bytes]:
        yield BIG
        await asyncio.sleep(0.2)
        assert list((tmp_path / "objects").rglob("*#*"))
        ended.append(await objects.end_unfinished(timedelta(hours=3)))
        yield b"end"

    await objects.write(key, slowly())
    assert ended == [0]
    assert (await whole(objects.read(key))).endswith(b"end")


async def test_a_tenant_that_is_removed_leaves_no_byte(
    objects: ObjectStore, killed: Callable[[str], None], tmp_path: Path
) -> None:
    """No object or unfinished write remains; it is an error if there is more at once."""
    tenant = new_id()
    await objects.write(new_key(tenant, "files"), pieces(b"x"))
    killed(new_key(tenant, "artifacts"))
    assert await objects.remove_tenant(tenant) == 2
    assert not (tmp_path / "objects" / "tenants" / str(tenant)).exists()
    assert await objects.remove_tenant(tenant) == 0


async def test_a_tenant_is_not_gone_while_somebody_writes(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the removal, the store is checked again, and there is something again."""
    tenant, remove = new_id(), objects.remove

    async def and_one_comes(keys: Sequence[str]) -> None:
        await remove(keys)
        await objects.write(new_key(tenant, "files"), pieces(b"x"))

    await objects.write(new_key(tenant, "files"), pieces(b"x"))
    monkeypatch.setattr(objects, "remove", and_one_comes)
    with pytest.raises(StoreUnavailable, match="still writes objects"):
        await objects.remove_tenant(tenant)
