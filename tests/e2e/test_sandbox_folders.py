"""Whole folders in and out of sandboxes, through the real API, node and supervisor."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agent_runner import ApiError, Client, Conflict, Invalid, NotFound, Sandbox, UnsafeArchive
from tests.support.deployment import Deployment

MIB = 2**20


@pytest.fixture(scope="module")
def api(shared: Deployment) -> Client:
    """Return a client of a tenant of this module's own."""
    return shared.client("folders")


@pytest.fixture(scope="module")
def sandbox(api: Client) -> Iterator[Sandbox]:
    """Return a sandbox for tests that leave it well."""
    with api.sandboxes.create(size="small", timeout_s=None) as made:
        yield made


def test_a_folder_goes_in_and_comes_out(sandbox: Sandbox, tmp_path: Path) -> None:
    folder, back = tmp_path / "folder", tmp_path / "back"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "large").write_bytes(os.urandom(5 * MIB))
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_bytes(b"raw")
    (folder / "link").symlink_to("deep/er")
    (folder / "tool").write_bytes(b"#!/bin/sh\necho runs\n")
    (folder / "tool").chmod(0o755)
    sandbox.files.upload_folder(folder, "in/it")
    assert (
        sandbox.run("in/it/tool && cat in/it/link/large | wc -c").stdout.text == "runs\n5242880\n"
    )
    sandbox.files.download_folder("in/it", back)
    names = {os.path.relpath(each, folder) for each in folder.rglob("*")}
    assert {os.path.relpath(each, back) for each in back.rglob("*")} == names
    large = back / "deep" / "er" / "large"
    assert large.read_bytes() == (folder / "deep" / "er" / "large").read_bytes()


def test_a_hostile_folder_stays_in_its_place_here(sandbox: Sandbox, tmp_path: Path) -> None:
    """Links that leave it and pipes are left out, and that is told."""
    sandbox.run(
        "mkdir bad && cd bad && ln -s /etc/passwd abs && ln -s .. up && mkfifo p && echo a > a"
    )
    with pytest.raises(UnsafeArchive) as told:
        sandbox.files.download_folder("bad", tmp_path / "here")
    assert all(name in str(told.value) for name in ("'abs'", "'up'", "p'"))
    assert [each.name for each in (tmp_path / "here").iterdir()] == ["a"]


def test_what_cannot_be_packed_or_unpacked_is_told(api: Client, sandbox: Sandbox) -> None:
    with pytest.raises(NotFound):
        list_of(sandbox, "missing")
    sandbox.run("echo a > file; mkdir -p full/file")
    with pytest.raises(Conflict) as refused:
        list_of(sandbox, "file")
    assert refused.value.reason == "ENOTDIR"
    with pytest.raises(Invalid, match="cannot be unpacked"):
        sandbox.files.write_archive("a", b"no archive" * 500)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        info = tarfile.TarInfo("file")
        info.size = 3
        made.addfile(info, io.BytesIO(b"abc"))
    sandbox.files.write_archive("full/inner", buffer.getvalue())
    assert sandbox.run("cat full/inner/file").stdout.text == "abc"


def test_a_full_disk_is_told_and_what_was_unpacked_stays(api: Client, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a", "b"):
        with (folder / name).open("wb") as file:
            file.write(os.urandom(48 * MIB))
    with api.sandboxes.create(size="small", limits={"disk_mb": 64}) as made:
        with pytest.raises(ApiError) as full:
            made.files.upload_folder(folder, "in")
        assert (full.value.status, full.value.reason) == (507, "ENOSPC")
        assert made.run("ls in | wc -l").stdout.text == "2\n"


def test_an_upload_that_breaks_off_leaves_a_whole_sandbox(
    shared: Deployment, sandbox: Sandbox
) -> None:
    """The part of the archive that had arrived is there, and tar is gone."""

    def breaks() -> Iterator[bytes]:
        info = tarfile.TarInfo("half")
        info.size = 10 * MIB
        yield info.tobuf() + bytes(MIB)
        raise OSError("the client has a fault")

    http = shared.http("folders")
    with pytest.raises(OSError, match="a fault"):
        http.put(
            f"/v1/sandboxes/{sandbox.id}/files/archive", params={"path": "half"}, content=breaks()
        )
    script = "for n in $(seq 600); do pgrep -x tar >/dev/null || exit 0; sleep 0.1; done; exit 1"
    assert sandbox.run(script).ok


def list_of(sandbox: Sandbox, path: str) -> list[str]:
    """Return the names in a folder's archive."""
    with sandbox.files.open_archive(path) as pieces:
        archive = b"".join(pieces)
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        return read.getnames()


def test_folders_are_the_sandbox_users_alone(shared: Deployment, sandbox: Sandbox) -> None:
    """A viewer may not, and for another tenant there is no such sandbox."""
    path = f"/v1/sandboxes/{sandbox.id}/files/archive"
    other = shared.http("folders-other")
    for answer in (other.get(path), other.put(path, content=b"x")):
        assert answer.status_code == 404
    viewer = shared.client("folders").keys.create("looks", role="viewer")
    with httpx.Client(
        base_url=shared.url, headers={"Authorization": f"Bearer {viewer.token}"}
    ) as v:
        assert v.get(path).status_code == 403
        assert v.put(path, content=b"x").status_code == 403
