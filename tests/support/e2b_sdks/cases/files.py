"""Files: read, written, listed, watched, and by signed addresses."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.support.e2b_sdks.case import Cases
from tests.support.e2b_sdks.world import World, drained

CASES = Cases()
MEBIBYTE = 2**20
WITHIN_S = 60.0
BOUNDARY = "a-boundary-of-this-test"


@CASES.case()
async def file_of_text(w: World) -> None:
    wrote = await w(w.box.files.write("note.txt", "häßlich\n"))
    assert (wrote.name, wrote.path) == ("note.txt", "/home/user/note.txt"), wrote
    assert await w(w.box.files.read("note.txt")) == "häßlich\n"
    assert (await w(w.box.commands.run("cat /home/user/note.txt"))).stdout == "häßlich\n"
    await w(w.box.files.write("/tmp/deep/er/note", "parents are made"))
    assert await w(w.box.files.read("/tmp/deep/er/note")) == "parents are made"


@CASES.case()
async def file_of_bytes(w: World) -> None:
    data = bytes(range(256)) * 4096
    await w(w.box.files.write("data.bin", data))
    assert bytes(await w(w.box.files.read("data.bin", format="bytes"))) == data
    await w(w.box.files.write("empty", b""))
    assert bytes(await w(w.box.files.read("empty", format="bytes"))) == b""


@CASES.case()
async def file_as_a_stream(w: World) -> None:
    data = b"0123456789abcdef" * (8 * MEBIBYTE // 16)
    await w(w.box.files.write("large", data))
    stream = await w(w.box.files.read("large", format="stream"))
    assert await drained(stream) == data


@CASES.case("files.write:gzip")
async def file_compressed_both_ways(w: World) -> None:
    text = "again and again\n" * 50_000
    await w(w.box.files.write("packed", text, gzip=True))
    assert await w(w.box.files.read("packed", gzip=True)) == text
    assert (await w(w.box.commands.run("wc -c < packed"))).stdout.strip() == str(len(text))


@CASES.case("files.write:use_octet_stream")
async def file_written_as_a_stream(w: World) -> None:
    data = b"x" * (3 * MEBIBYTE + 1)
    await w(w.box.files.write("streamed", data, use_octet_stream=True))
    assert bytes(await w(w.box.files.read("streamed", format="bytes"))) == data


@CASES.case("files.write_files")
async def files_many_at_once(w: World) -> None:
    many = [{"path": f"many/{n}.txt", "data": f"number {n}"} for n in range(20)]
    wrote = await w(w.box.files.write_files(many))
    assert {each.path for each in wrote} == {f"/home/user/many/{n}.txt" for n in range(20)}
    assert await w(w.box.files.read("many/13.txt")) == "number 13"
    assert await w(w.box.files.write_files([])) == []


@CASES.case()
async def files_are_listed(w: World) -> None:
    box = w.box
    await w(box.commands.run("rm -rf tree; mkdir -p tree/a/b; echo 123 > tree/f; echo > tree/a/g"))
    flat = {each.name: each for each in await w(box.files.list("tree"))}
    assert set(flat) == {"a", "f"}
    assert (flat["a"].type.value, flat["f"].type.value) == ("dir", "file")
    assert (flat["f"].path, flat["f"].size) == ("/home/user/tree/f", 4)
    deep = {each.path for each in await w(box.files.list("/home/user/tree", depth=2))}
    assert deep == {f"/home/user/tree/{each}" for each in ("a", "a/b", "a/g", "f")}
    await w.raises("NotFoundException", lambda: box.files.list("no/such/folder"))
    await w.raises("InvalidArgumentException", lambda: box.files.list("tree", depth=0))


@CASES.case("files.get_info")
async def file_is_described(w: World) -> None:
    box = w.box
    await w(
        box.commands.run("printf 12345 > described; chmod 640 described; ln -sf described a-link")
    )
    info = await w(box.files.get_info("described"))
    assert (info.name, info.path) == ("described", "/home/user/described")
    assert (info.type.value, info.size, info.permissions) == ("file", 5, "-rw-r-----"), info
    assert (info.owner, info.mode & 0o777) == ("user", 0o640), info
    assert abs(info.modified_time.timestamp() - time.time()) < 600, info
    link = await w(box.files.get_info("a-link"))
    assert link.symlink_target == "/home/user/described", link


@CASES.case()
async def file_is_renamed(w: World) -> None:
    box = w.box
    await w(box.files.write("old-name", "same"))
    renamed = await w(box.files.rename("old-name", "new-name"))
    assert renamed.path == "/home/user/new-name", renamed
    assert await w(box.files.read("new-name")) == "same"
    assert await w(box.files.exists("old-name")) is False


@CASES.case()
async def file_is_removed(w: World) -> None:
    box = w.box
    await w(box.files.write("full/of/things", "x"))
    assert await w(box.files.exists("full")) is True
    await w(box.files.remove("full"))
    assert await w(box.files.exists("full")) is False
    assert await w(box.files.exists("full/of/things")) is False


@CASES.case()
async def folder_is_made(w: World) -> None:
    box = w.box
    await w(box.commands.run("rm -rf made"))
    assert await w(box.files.make_dir("made/below")) is True
    assert await w(box.files.make_dir("made/below")) is False
    assert (await w(box.files.get_info("made"))).type.value == "dir"


@CASES.case()
async def file_that_is_missing(w: World) -> None:
    await w.raises("NotFoundException", lambda: w.box.files.read("no-such-file"))
    await w.raises("NotFoundException", lambda: w.box.files.rename("no-such-file", "other"))


@CASES.case("files.watch_dir:recursive")
async def folder_is_watched(w: World) -> None:
    """Changes are seen in order, below it as well, and no more once it is stopped."""
    box = w.box
    await w(box.commands.run("rm -rf watched; mkdir -p watched/below"))
    seen: list[Any] = []
    given: dict[str, Any] = {} if w.sync else {"on_event": seen.append}
    watch = await w(box.files.watch_dir("watched", recursive=True, **given))
    await w(
        box.commands.run(
            "echo 1 > watched/f; mv watched/f watched/g; echo > watched/below/h; rm watched/g"
        )
    )

    def kinds() -> set[tuple[str, str]]:
        if w.sync:
            seen.extend(watch.get_new_events())
        return {(each.type.value, each.name) for each in seen}

    expected = {
        ("create", "f"), ("write", "f"), ("rename", "f"), ("create", "g"), ("create", "below/h"),
        ("remove", "g"),
    }  # fmt: skip
    deadline = time.monotonic() + WITHIN_S
    while not expected <= kinds():
        assert time.monotonic() < deadline, f"missing {expected - kinds()} in {kinds()}"
        await asyncio.sleep(0.05)
    await w(watch.stop())


@CASES.case("Sandbox.download_url")
async def file_by_a_signed_address(w: World) -> None:
    """The address alone reads and writes; one for another file, or too old, does not."""
    box = w.box
    await w(box.files.write("shared.txt", "for whoever has the address"))
    address = box.download_url("shared.txt", use_signature_expiration=60)
    assert await fetched(address) == b"for whoever has the address"
    assert await fetched(box.download_url("shared.txt")) == b"for whoever has the address"
    for forged in (address.replace("shared.txt", "note.txt"), address + "0"):
        try:
            await fetched(forged)
        except HTTPError as error:
            assert error.code in {401, 403, 404, 502}, error  # noqa: PT017
        else:
            raise AssertionError(f"{forged} was taken")
    form = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="up.txt"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\nuploaded\r\n--{BOUNDARY}--\r\n"
    )
    await fetched(box.upload_url("up.txt", use_signature_expiration=60), form.encode())
    assert await w(box.files.read("up.txt")) == "uploaded"


async def fetched(address: str, form: bytes | None = None) -> bytes:
    """Return what an address answers, with no header of the SDK's."""
    request = Request(address, data=form)  # noqa: S310 - an address of the deployment
    if form is not None:
        request.add_header("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")

    def read() -> bytes:
        with urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            return bytes(answer.read())

    return await asyncio.to_thread(read)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """Yield bytes in pieces, for the async classes."""
    for at in range(0, len(data), 64 * 1024):
        yield data[at : at + 64 * 1024]
