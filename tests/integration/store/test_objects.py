"""The object store over a local folder, and over S3 by a real HTTP server that speaks it."""

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from runner.errors import StoreUnavailable
from runner.ids import new_id
from runner.settings import Settings
from runner.store.objects import CHUNK, PART, ObjectStore, new_key
from tests.deployment import eventually

BIG = os.urandom(3 * PART + 7)


async def pieces(content: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    """Yield a content in pieces, as a request's body comes."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    """Return what was yielded, having seen that no piece was large."""
    found = bytearray()
    async for chunk in chunks:
        assert len(chunk) <= 16 * CHUNK
        found += chunk
    return bytes(found)


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """Run an S3 server with a bucket in it; yield the settings that lead there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        eventually(lambda: _answers(port))
        assert httpx.put(f"{endpoint}/objects").is_success
        yield {"objects_url": "s3://objects/of/runner", "objects_endpoint": endpoint}
    finally:
        server.terminate()
        server.wait(timeout=20)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=["local", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """Return each kind of store in turn."""
    if request.param == "local":
        return ObjectStore.open(Settings(state_dir=tmp_path))
    return ObjectStore.open(
        Settings(
            state_dir=tmp_path,
            objects_access_key=SecretStr("test-key"),
            objects_secret_key=SecretStr("test-secret"),
            **request.getfixturevalue("s3"),
        )
    )


@pytest.mark.parametrize("content", [b"", b"x", BIG], ids=["empty", "one byte", "several parts"])
async def test_what_was_written_is_read(objects: ObjectStore, content: bytes) -> None:
    """Byte for byte, whatever its size."""
    key = new_key(new_id(), "files")
    await objects.write(key, pieces(content))
    assert await whole(objects.read(key)) == content


async def test_a_range_is_read_alone(objects: ObjectStore) -> None:
    """At the beginning, inside, at the end, and nothing of nothing."""
    key = new_key(new_id(), "files")
    await objects.write(key, pieces(BIG))
    for start, end in ((0, 1), (PART - 1, PART + 1), (len(BIG) - 3, len(BIG)), (5, 5)):
        assert await whole(objects.read(key, start, end)) == BIG[start:end]
    assert await whole(objects.read(key, len(BIG) - 3)) == BIG[-3:]


async def test_a_listing_is_of_one_tenant(objects: ObjectStore) -> None:
    """And a removal, too: the other's objects stay."""
    ours, theirs = new_id(), new_id()
    keys = {tenant: [new_key(tenant, "files") for _ in range(3)] for tenant in (ours, theirs)}
    for key in (*keys[ours], *keys[theirs]):
        await objects.write(key, pieces(b"x"))
    assert sorted([key async for some in objects.keys(ours) for key in some]) == sorted(keys[ours])
    assert await objects.remove_tenant(ours) == 3
    assert [some async for some in objects.keys(ours)] == []
    assert await whole(objects.read(keys[theirs][0])) == b"x"


async def test_what_is_removed_is_gone_and_may_be_removed_again(objects: ObjectStore) -> None:
    """As after a crash: what is gone already is no fault."""
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
    """An error names its kind; addresses and keys stay inside."""
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


async def test_nobody_else_may_enter_the_folder(tmp_path: Path) -> None:
    """Of the state folder others may pass through; of the objects nobody sees a name."""
    objects = ObjectStore.open(Settings(state_dir=tmp_path))
    await objects.write(new_key(new_id(), "files"), pieces(b"x"))
    assert (tmp_path / "objects").stat().st_mode & 0o777 == 0o700
