"""Bodies of `/files`: in parts and in gzip, cut anywhere, hostile, and never gathered."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from runner.api.counting import Surcharge
from runner.api.e2b.daemon.coding import (
    INLINE,
    MAX_MEMBERS,
    PIECE,
    Undecodable,
    packed,
    unpacked,
)
from runner.api.e2b.daemon.files import _Upload
from runner.api.e2b.daemon.multipart import (
    MAX_HEAD,
    MAX_PARTS,
    Malformed,
    Multipart,
    boundary,
)
from runner.api.e2b.daemon.tree import Tree
from runner.words.living import FileEntry

MARK = b"xyz"


async def coming(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yield pieces, as a body comes."""
    for each in pieces:
        yield each


def sliced(data: bytes, size: int) -> list[bytes]:
    """Return bytes in pieces of a size."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def body(*parts: tuple[str, bytes]) -> bytes:
    """Return files as a client sends them."""
    made = b""
    for name, content in parts:
        disposition = f'form-data; name="file"; filename="{name}"'.encode()
        made += b"--" + MARK + b"\r\nContent-Disposition: " + disposition
        made += b"\r\nContent-Type: text/plain\r\n\r\n" + content + b"\r\n"
    return made + b"--" + MARK + b"--\r\n"


async def read(pieces: Iterable[bytes]) -> list[tuple[str, str | None, bytes]]:
    """Return all parts of a body."""
    return [
        (part.name, part.filename, b"".join([each async for each in part.chunks]))
        async for part in Multipart(MARK, coming(pieces)).parts()
    ]


@given(
    st.lists(st.binary(max_size=60).filter(lambda each: b"\r\n--xyz" not in each), max_size=4),
    st.integers(1, 50),
)
async def test_parts_are_the_same_however_they_are_cut(contents: list[bytes], size: int) -> None:
    sent = [(f"dir/{n}.txt", each) for n, each in enumerate(contents)]
    found = await read(sliced(body(*sent), size))
    assert found == [("file", name, content) for name, content in sent]


async def test_what_looks_like_a_boundary_is_content() -> None:
    content = b"\r\n--xy\r\n-\r\n--\r\nxyz--xyz\r\n-xyz\r"
    assert await read([body(("a", content))]) == [("file", "a", content)]


async def test_names_are_read_as_clients_write_them() -> None:
    """Clients escape quotes, backslashes and other alphabets as httpx does, or as browsers do."""
    for written, meant in (
        ("a%22b", 'a"b'), (r"a\"b", 'a"b'), ("a\\\\b", "a\\b"), ("ä/ü.txt", "ä/ü.txt"), ("", ""),
        ("/home/user/x; y=z", "/home/user/x; y=z"),
    ):  # fmt: skip
        assert (await read([body((written, b""))]))[0][1] == meant


async def test_what_a_reader_leaves_is_skipped() -> None:
    pieces = sliced(body(("a", b"1" * 1000), ("b", b"2" * 1000)), 10)
    names = [part.filename async for part in Multipart(MARK, coming(pieces)).parts()]
    assert names == ["a", "b"]


async def test_a_large_part_is_never_held() -> None:
    """Each piece is passed on before the next one is taken."""
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        yield body(("a", b"")).partition(b"\r\n--xyz--")[0]
        for _ in range(200):
            taken += 1
            yield b"\r" * 1000
        yield b"\r\n--xyz--\r\n"

    async for part in Multipart(MARK, endless()).parts():
        passed = 0
        async for each in part.chunks:
            passed += len(each)
            assert taken * 1000 - passed < 2000
        assert passed == 200_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"--xyz",
        b"--xyz\r\n",
        body(("a", b"b"))[:-6],
        b"--xyz\r\nContent-Type: x\r\n\r\n\r\n--xyz--",
        b"--xyz\r\n" + b"a: b\r\n" * MAX_HEAD,
        b'--xyz\r\nContent-Disposition: x; name="\xff"\r\n\r\n\r\n--xyz--',
        body(*[("a", b"")] * (MAX_PARTS + 1)),
    ],
    ids=["empty", "a mark", "no head", "no end", "no name", "a long head", "not UTF-8", "many"],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 100_000])
async def test_a_malformed_body_is_refused(data: bytes, size: int) -> None:
    if size == 1 and len(data) > 10_000:
        size = 7
    with pytest.raises(Malformed):
        await read(sliced(data, size))


@given(st.binary(max_size=300), st.integers(1, 20))
async def test_any_bytes_are_parts_or_refused(data: bytes, size: int) -> None:
    with suppress(Malformed):
        await read(sliced(b"--xyz\r\n" + data + b"\r\n--xyz--", size))


def test_a_boundary_is_in_the_type() -> None:
    assert boundary("multipart/form-data; boundary=abc") == b"abc"
    assert boundary('Multipart/Form-Data; charset=x; BOUNDARY="a b"') == b"a b"
    assert boundary("application/octet-stream") is None
    for wrong in ("multipart/form-data", "multipart/form-data; boundary=" + "x" * 71):
        with pytest.raises(Malformed):
            boundary(wrong)


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    """Return all bytes."""
    return b"".join([each async for each in chunks])


def unpacking(body: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """Unpack a body for nothing."""
    return unpacked(body, most, free)


async def free(_: int) -> None:
    """Charge nothing."""


@given(st.lists(st.binary(max_size=500), min_size=1, max_size=3), st.integers(1, 40))
async def test_gzip_is_unpacked_however_it_is_cut(members: list[bytes], size: int) -> None:
    data = b"".join(map(gzip.compress, members))
    assert await whole(unpacking(coming(sliced(data, size)), 10_000)) == b"".join(members)


async def test_a_bomb_comes_in_small_pieces_and_ends_at_the_bound() -> None:
    packed_zeros = bomb(20)
    got: list[int] = []

    async def taken() -> None:
        async for piece in unpacking(coming([packed_zeros]), 10 * PIECE):
            assert len(piece) <= PIECE
            got.append(len(piece))

    with pytest.raises(Undecodable, match="more than"):
        await taken()
    assert sum(got) <= 10 * PIECE
    assert len(await whole(unpacking(coming([packed_zeros]), 20 * PIECE))) == 20 * PIECE


@pytest.mark.parametrize(
    "data",
    [b"", b"plain text", gzip.compress(b"cut off")[:-3], zlib.compress(b"zlib"),
     gzip.compress(b"x") + b"junk"],
    ids=["empty", "plain", "cut", "another coding", "junk behind"],
)  # fmt: skip
async def test_what_is_not_gzip_is_refused(data: bytes) -> None:
    with pytest.raises(Undecodable):
        await whole(unpacking(coming([data] if data else []), 1000))


async def test_what_is_packed_is_gzip() -> None:
    assert (
        gzip.decompress(await whole(packed(coming([b"a" * 70_000, b"b"])))) == b"a" * 70_000 + b"b"
    )


def bomb(pieces: int) -> bytes:
    """Return few bytes that become many."""
    return gzip.compress(bytes(pieces * PIECE), 9)


@pytest.mark.parametrize("size", [INLINE, 2**16])
async def test_the_event_loop_goes_on_while_a_bomb_is_skipped(size: int) -> None:
    """Its reader, which throws all of it away, waits for nothing by itself."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    async for _ in unpacking(coming(sliced(bomb(40), size)), 40 * PIECE):
        pass
    task.cancel()
    assert turns >= 40


async def test_what_a_form_skips_lets_the_event_loop_go_on() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    pieces = sliced(body(("a", b"1" * 1000)), 10)
    async for _ in Multipart(MARK, coming(pieces)).parts():
        pass
    task.cancel()
    assert turns >= len(pieces) // 2


async def test_unpacked_bytes_are_paid_for_before_they_are_passed_on() -> None:
    paid: list[int] = []

    class TooPoor(Exception):
        """No more can be paid."""

    async def pay(length: int) -> None:
        if sum(paid) + length > 5 * PIECE:
            raise TooPoor
        paid.append(length)

    got = 0

    async def taken() -> None:
        nonlocal got
        async for piece in unpacked(coming([bomb(40)]), 40 * PIECE, pay):
            got += len(piece)

    with pytest.raises(TooPoor):
        await taken()
    assert got == sum(paid) == 5 * PIECE


async def test_many_members_of_gzip_are_refused() -> None:
    """Each costs a copy of all that follows it."""
    member = gzip.compress(b"")
    assert await whole(unpacking(coming([member * MAX_MEMBERS]), 10)) == b""
    for size in (20, 2**16):
        with pytest.raises(Undecodable, match="members"):
            await whole(unpacking(coming(sliced(member * (MAX_MEMBERS + 1), size)), 10))


@pytest.mark.parametrize("for_one", [1, 7, 1000])
async def test_small_things_are_charged_together(for_one: int) -> None:
    """One place for each so many, however they come."""
    places: list[int] = []

    async def charge(cost: int) -> None:
        places.append(cost)

    surcharge = Surcharge(charge, for_one)
    for done in (1, 2, 3, 500, 0, 1500):
        await surcharge.add(done)
    assert sum(places) == 2006 // for_one
    assert 0 not in places


async def test_each_further_file_is_paid_for_before_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places, wrote = 0, 0

    class TooPoor(Exception):
        """No more can be paid."""

    async def charge(cost: int) -> None:
        nonlocal places
        if (places := places + cost) > 3:
            raise TooPoor

    async def write(_: Tree, path: str, chunks: AsyncIterator[bytes]) -> FileEntry:
        nonlocal wrote
        wrote += 1
        await whole(chunks)
        return FileEntry(path, "file", 0, 0o644, datetime.now(UTC))

    monkeypatch.setattr(Tree, "write", write)
    upload = _Upload(Tree(cast(Any, None), cast(Any, None)), None, 1000, charge)
    headers = [(b"content-type", b"multipart/form-data; boundary=" + MARK)]
    request = Request({"type": "http", "method": "POST", "path": "/files", "headers": headers})
    sent = [(str(n), b"x") for n in range(10)]
    assert len(await upload.of(request, coming([body(*sent[:4])]))) == 4
    places, wrote = 0, 0
    with pytest.raises(TooPoor):
        await upload.of(request, coming([body(*sent)]))
    assert wrote == 4
