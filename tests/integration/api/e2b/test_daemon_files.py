"""Files by E2B's daemon: looked at, made, moved, watched, and moved in and out."""

import gzip
import os
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.connect import bash, done, opened, refused, streamed
from tests.support.deployment import PATIENCE_S, Deployment, eventually
from tests.support.e2b import control, create, within

FILES = "filesystem.Filesystem"
START = "process.Process/Start"
STAT, MAKE, MOVE = f"{FILES}/Stat", f"{FILES}/MakeDir", f"{FILES}/Move"
LIST, REMOVE, WATCH = f"{FILES}/ListDir", f"{FILES}/Remove", f"{FILES}/WatchDir"
CREATE, EVENTS, END = (
    f"{FILES}/CreateWatcher", f"{FILES}/GetWatcherEvents", f"{FILES}/RemoveWatcher",
)  # fmt: skip
OCTETS = {"Content-Type": "application/octet-stream"}
PACKED = gzip.compress(b"x", mtime=0)
"""The same in each process that collects tests: it is part of a test's name."""


@pytest.fixture(scope="module")
def inside(deployed: Deployment) -> Iterator[httpx.Client]:
    """Return a client inside a sandbox."""
    client = control(deployed, "e2b-files")
    made = create(client)
    yield within(deployed, made)
    assert client.delete(f"/sandboxes/{made['sandboxID']}").status_code == 204


def put(inside: httpx.Client, path: str, content: bytes = b"") -> dict[str, Any]:
    """Write a file; return what is said of it."""
    answer = inside.post("/files", params={"path": path}, content=content, headers=OCTETS)
    assert answer.status_code == 200, answer.text
    (written,) = answer.json()
    found: dict[str, Any] = written
    return found


def test_a_file_goes_in_and_out(inside: httpx.Client) -> None:
    """In one body or in parts, by absolute and relative paths; folders above are made."""
    content = os.urandom(300_000)
    written = put(inside, "in/a/b.bin", content)
    assert (written["name"], written["type"]) == ("b.bin", "file")
    for path in ("in/a/b.bin", "~/in/a/b.bin", written["path"]):
        answer = inside.get("/files", params={"path": path, "username": "user"})
        assert answer.content == content
        assert answer.headers["content-length"] == "300000"
        assert answer.headers["content-disposition"].startswith("attachment")
    part = inside.get("/files", params={"path": "in/a/b.bin"}, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])


def test_several_files_go_in_at_once(inside: httpx.Client) -> None:
    """Each part's name is its path, unless the request has one."""
    sent = {"many/ä.txt": b"1", 'many/"quoted" \\.txt': b"22", "/tmp/many.txt": b""}  # noqa: S108
    answer = inside.post("/files", files=[("file", item) for item in sent.items()])
    assert [each["name"] for each in answer.json()] == ["ä.txt", '"quoted" \\.txt', "many.txt"]
    for path, content in sent.items():
        assert inside.get("/files", params={"path": path}).content == content
    one = inside.post("/files", params={"path": "many/one"}, files={"file": ("other", b"x")})
    assert [each["name"] for each in one.json()] == ["one"]
    twice = inside.post("/files", files=[("file", ("many/t", b"1")), ("file", ("many/t", b"2"))])
    assert (twice.status_code, twice.json()["code"]) == (400, 400)
    assert inside.get("/files", params={"path": "many/t"}).content == b"1"


def test_gzip_goes_in_and_out_when_it_is_asked_for(inside: httpx.Client) -> None:
    content = b"again and again " * 50_000
    answer = inside.post(
        "/files", params={"path": "packed"}, content=gzip.compress(content, mtime=0),
        headers={**OCTETS, "Content-Encoding": "gzip"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    with inside.stream(
        "GET", "/files", params={"path": "packed"}, headers={"Accept-Encoding": "gzip"}
    ) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        raw = b"".join(packed.iter_raw())
    assert len(raw) < len(content) / 10
    assert gzip.decompress(raw) == content
    plain = inside.get("/files", params={"path": "packed"}, headers={"Accept-Encoding": "gzip, br"})
    assert "content-encoding" not in plain.headers
    assert plain.content == content


def test_a_file_keeps_its_permissions_when_it_is_written_again(inside: httpx.Client) -> None:
    put(inside, "tool.sh", b"#!/bin/sh\necho 1\n")
    assert done(inside, STAT, {"path": "tool.sh"})["entry"]["mode"] == 0o644
    streamed(inside, START, bash("chmod 755 tool.sh"))
    put(inside, "tool.sh", b"#!/bin/sh\necho 2\n")
    entry = done(inside, STAT, {"path": "tool.sh"})["entry"]
    assert (entry["mode"], entry["permissions"]) == (0o755, "-rwxr-xr-x")


@pytest.mark.parametrize(
    ("query", "body", "headers", "status"),
    [
        ({}, b"x", OCTETS, 400),
        ({"path": "x"}, b"x", {"Content-Type": "text/plain"}, 400),
        ({"path": "x"}, b"x", {}, 400),
        ({"path": "x"}, b"x", {"Content-Type": "multipart/form-data"}, 400),
        ({"path": "x"}, b"x", {"Content-Type": "multipart/form-data; boundary=a"}, 400),
        ({"path": "x"}, b"not gzip", {**OCTETS, "Content-Encoding": "gzip"}, 400),
        ({"path": "x"}, PACKED[:-4], {**OCTETS, "Content-Encoding": "gzip"}, 400),
        ({"path": "x"}, b"x", {**OCTETS, "Content-Encoding": "br"}, 501),
        ({"path": "x"}, b"x", {**OCTETS, "X-Metadata-Owner": "me"}, 501),
        ({"path": "x", "username": "root"}, b"x", OCTETS, 403),
        ({"path": "x", "other": "1"}, b"x", OCTETS, 400),
        ({"path": "x\0"}, b"x", OCTETS, 400),
        ({"path": "x" * 5000}, b"x", OCTETS, 400),
        ({"path": "/etc/x"}, b"x", OCTETS, 403),
        ({"path": "/proc/self/x"}, b"x", OCTETS, 403),
        ({"path": "/tmp"}, b"x", OCTETS, 400),  # noqa: S108 - in the sandbox
    ],
)
def test_a_wrong_upload_says_why_and_writes_nothing(
    inside: httpx.Client,
    query: dict[str, str],
    body: bytes,
    headers: dict[str, str],
    status: int,
) -> None:
    answer = inside.post("/files", params=query, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, status), answer.text
    assert refused(inside, STAT, {"path": "x"}) == "not_found"


@pytest.mark.parametrize(
    ("path", "status"), [("nothing", 404), ("/usr", 400), ("/proc/version", 403), ("", 400)]
)
def test_what_is_no_file_cannot_be_read(inside: httpx.Client, path: str, status: int) -> None:
    answer = inside.get("/files", params={"path": path})
    assert (answer.status_code, answer.json()["code"]) == (status, status)


def test_entries_have_the_newest_specifications_fields(inside: httpx.Client) -> None:
    """A link has its target's type and its own mark; one that leads nowhere has its own type."""
    put(inside, "look/file", b"12345")
    streamed(inside, START, bash("cd look; ln -s file a; ln -s nowhere b; ln -s d c; mkdir d"))
    found = {each["name"]: each for each in done(inside, LIST, {"path": "look"})["entries"]}
    assert {name: each["type"].removeprefix("FILE_TYPE_") for name, each in found.items()} == {
        "file": "FILE", "a": "FILE", "b": "SYMLINK", "c": "DIRECTORY", "d": "DIRECTORY",
    }  # fmt: skip
    assert {name for name, each in found.items() if each["isSymlink"]} == {"a", "b", "c"}
    assert found["a"]["symlinkTarget"] == found["file"]["path"]
    assert found["b"]["symlinkTarget"].endswith("/look/nowhere")
    assert found["file"] == done(inside, STAT, {"path": "look/file"})["entry"]
    entry = found["file"]
    assert (entry["size"], entry["owner"], entry["group"]) == ("5", "user", "user")
    assert entry["path"].endswith("/look/file")
    assert entry["modifiedTime"].endswith("Z")
    assert done(inside, STAT, {"path": "/etc/passwd"})["entry"]["owner"] == "root"
    # A link to a folder is listed as that folder.
    put(inside, "look/d/linked")
    listed = done(inside, LIST, {"path": "look/c"})["entries"]
    assert "linked" in {each["name"] for each in listed}


def test_a_list_goes_as_deep_as_it_is_asked_to(inside: httpx.Client) -> None:
    put(inside, "deep/1/2/3/file")
    for depth, names in ((0, ["1"]), (1, ["1"]), (2, ["1", "2"]), (9, ["1", "2", "3", "file"])):
        entries = done(inside, LIST, {"path": "deep", "depth": depth})["entries"]
        assert [each["name"] for each in entries] == names
    assert refused(inside, LIST, {"path": "deep/1/2/3/file"}) == "invalid_argument"
    assert refused(inside, LIST, {"path": "deep/nothing"}) == "not_found"


def test_folders_are_made_moved_and_removed(inside: httpx.Client) -> None:
    made = done(inside, MAKE, {"path": "made/a/b"})["entry"]
    assert (made["name"], made["type"]) == ("b", "FILE_TYPE_DIRECTORY")
    assert refused(inside, MAKE, {"path": "made/a/b"}) == "already_exists"
    put(inside, "made/file", b"1")
    assert refused(inside, MAKE, {"path": "made/file"}) == "invalid_argument"
    moved = done(inside, MOVE, {"source": "made/file", "destination": "new/deep/file"})["entry"]
    assert moved["path"].endswith("/new/deep/file")
    put(inside, "made/other", b"2")
    done(inside, MOVE, {"source": "made/other", "destination": "new/deep/file"})
    assert inside.get("/files", params={"path": "new/deep/file"}).content == b"2"
    assert refused(inside, MOVE, {"source": "nothing", "destination": "else/x"}) == "not_found"
    assert refused(inside, STAT, {"path": "else"}) == "not_found"
    assert done(inside, REMOVE, {"path": "made"}) == {}
    assert done(inside, REMOVE, {"path": "made"}) == {}
    assert refused(inside, STAT, {"path": "made"}) == "not_found"


def seen(inside: httpx.Client, watcher: str, name: str) -> list[dict[str, Any]]:
    """Return what a watcher has seen, once it has seen this name."""
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + PATIENCE_S
    while all(each["name"] != name for each in found):
        assert time.monotonic() < deadline, found
        found += done(inside, EVENTS, {"watcherId": watcher})["events"]
    return found


def test_a_watcher_keeps_what_has_changed_until_it_is_asked(inside: httpx.Client) -> None:
    """In E2B's order: a file that a client writes is made and written, under no other name."""
    put(inside, "seen/old")
    asked = {"path": "seen", "recursive": True, "includeEntry": True}
    watcher = done(inside, CREATE, asked)["watcherId"]
    put(inside, "seen/file", b"123")
    streamed(inside, START, bash("cd seen; mv file moved; chmod 600 moved; rm moved; mkdir last"))
    found = seen(inside, watcher, "last")
    kinds = [(each["name"], each["type"].removeprefix("EVENT_TYPE_")) for each in found]
    assert kinds[:3] == [("file", "CREATE"), ("file", "WRITE"), ("file", "RENAME")]
    assert kinds[3:] == [
        ("moved", "CREATE"), ("moved", "CHMOD"), ("moved", "REMOVE"), ("last", "CREATE"),
    ]  # fmt: skip
    assert found[-1]["entry"]["type"] == "FILE_TYPE_DIRECTORY"
    assert "entry" not in found[2]
    assert done(inside, EVENTS, {"watcherId": watcher}) == {"events": []}
    assert done(inside, END, {"watcherId": watcher}) == {}
    assert refused(inside, EVENTS, {"watcherId": watcher}) == "not_found"


def test_a_folder_is_watched_as_it_changes(inside: httpx.Client) -> None:
    put(inside, "stream/a/file")
    with opened(inside, WATCH, {"path": "stream"}, Keepalive_Ping_Interval="1") as coming:
        assert next(coming)[1] == {"start": {}}
        # Not recursive: this is not seen.
        put(inside, "stream/a/other")
        done(inside, MAKE, {"path": "stream/b"})
        each = next(coming)[1]
        while "keepalive" in each:
            each = next(coming)[1]
        assert each == {"filesystem": {"name": "b", "type": "EVENT_TYPE_CREATE"}}


def test_only_folders_are_watched(inside: httpx.Client) -> None:
    put(inside, "plain")
    for call, wrong in ((CREATE, "invalid_argument"), (WATCH, "invalid_argument")):
        if call == CREATE:
            assert refused(inside, call, {"path": "plain"}) == wrong
            assert refused(inside, call, {"path": "nothing"}) == "not_found"
        else:
            assert streamed(inside, call, {"path": "plain"})[1]["error"]["code"] == wrong
            missing = streamed(inside, call, {"path": "nothing"})[1]
            assert missing["error"]["code"] == "not_found"


def test_a_sandbox_may_have_so_many_watchers(inside: httpx.Client) -> None:
    """The next one is refused; one that ends makes room."""
    done(inside, MAKE, {"path": "crowd"})
    made: list[str] = []
    try:
        while len(made) < 100:
            answer = inside.post(f"/{CREATE}", json={"path": "crowd"})
            if answer.status_code != 200:
                break
            made.append(answer.json()["watcherId"])
        assert answer.json()["code"] == "resource_exhausted"
        assert len(made) == 32
        done(inside, END, {"watcherId": made.pop()})
        made.append(done(inside, CREATE, {"path": "crowd"})["watcherId"])
    finally:
        for each in made:
            done(inside, END, {"watcherId": each})


def test_the_environment_is_told(deployed: Deployment) -> None:
    client = control(deployed, "e2b-files")
    made = create(client, envVars={"GIVEN": "1"})
    assert within(deployed, made).get("/envs").json() == {"GIVEN": "1"}
    client.delete(f"/sandboxes/{made['sandboxID']}")


@pytest.mark.parametrize(
    "content_type", ["application/octet-stream", "multipart/form-data; boundary=x"]
)
def test_an_upload_that_breaks_off_leaves_nothing(
    deployed: Deployment, inside: httpx.Client, content_type: str
) -> None:
    """Neither the file nor what was written of it."""
    streamed(inside, START, bash("mkdir -p broken"))
    address = urlsplit(deployed.url)
    begun = b"--x\r\nContent-Disposition: form-data; name=file; filename=broken/f\r\n\r\n"
    head = (
        f"POST /files?path=broken/f HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: 9000000\r\ne2b-sandbox-id: {inside.headers['e2b-sandbox-id']}\r\n"
        f"x-access-token: {inside.headers['x-access-token']}\r\n\r\n"
    ).encode()
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(head + begun + b"x" * 500_000)
        eventually(lambda: names(inside, "broken"))
        assert names(inside, "broken") != ["f"]
    eventually(lambda: not names(inside, "broken"))


def names(inside: httpx.Client, path: str) -> list[str]:
    """Return what is in a folder."""
    return [each["name"] for each in done(inside, LIST, {"path": path})["entries"]]
