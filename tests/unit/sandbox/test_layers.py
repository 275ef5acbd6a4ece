"""What a sandbox has packed becomes a layer of an image only in harmless form."""

import io
import tarfile
from collections.abc import Callable

import pytest

from runner.sandbox.engine.layers import WrittenLayer, write_layer
from runner.words.errors import Invalid
from runner.words.sandbox import AGENT, UnixAccount

Change = Callable[[tarfile.TarInfo], None]
MOST = 2**20


def archive(*entries: tuple[str, bytes | None, dict[str, object]]) -> io.BytesIO:
    """Return an archive: of each entry its name, its content if it is a file, and its fields."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as writing:
        for name, content, fields in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content or b"")
            for field, value in fields.items():
                setattr(entry, field, value)
            writing.addfile(entry, io.BytesIO(content or b""))
    packed.seek(0)
    return packed


def layer(
    packed: io.BytesIO, account: UnixAccount = AGENT, *, most: int = MOST
) -> tuple[WrittenLayer, dict[str, tarfile.TarInfo]]:
    """Return the layer that is written of an archive, and its entries by name."""
    target = io.BytesIO()
    written = write_layer(packed, target, account, most=most)
    target.seek(0)
    with tarfile.open(fileobj=target) as reading:
        return written, {entry.name: entry for entry in reading}


def test_files_folders_and_links_are_kept_and_belong_to_root() -> None:
    packed = archive(
        ("./usr", None, {"type": tarfile.DIRTYPE, "mode": 0o755, "uid": 7}),
        ("./usr/tool", b"#!", {"mode": 0o755, "uid": 7, "gid": 8, "uname": "who"}),
        ("./usr/link", None, {"type": tarfile.SYMTYPE, "linkname": "/anywhere/../else"}),
        ("./usr/same", None, {"type": tarfile.LNKTYPE, "linkname": "./usr/tool"}),
    )
    written, found = layer(packed)
    assert list(found) == ["usr", "usr/tool", "usr/link", "usr/same"]
    assert {(e.uid, e.gid, e.uname) for e in found.values()} == {(0, 0, "")}
    assert found["usr/tool"].mode == 0o755
    assert found["usr/link"].linkname == "/anywhere/../else"
    assert found["usr/same"].linkname == "usr/tool"
    assert written.diff_id.startswith("sha256:")


def test_the_same_archive_gives_the_same_layer() -> None:
    """Each node makes the same image of a template."""
    one, other = (archive(("a", b"content", {"mtime": 5})) for _ in range(2))
    assert layer(one)[0] == layer(other)[0]


def test_no_file_sets_its_users_id() -> None:
    _, found = layer(archive(("su", b"#!", {"mode": 0o6755}), ("t", b"", {"mode": 0o1777})))
    assert (found["su"].mode, found["t"].mode) == (0o755, 0o1777)


def test_attributes_such_as_capabilities_are_left_out() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as writing:
        entry = tarfile.TarInfo("ping")
        entry.pax_headers = {"SCHILY.xattr.security.capability": "all"}
        writing.addfile(entry)
    packed.seek(0)
    _, found = layer(packed)
    assert found["ping"].pax_headers == {}


@pytest.mark.parametrize(
    "name",
    [
        "opt/supervisor/serve.py", "./opt/supervisor", "opt//supervisor/x", "opt/.wh.supervisor",
        "opt/supervisor/.wh..wh..opq", "etc/passwd", "etc/.wh.group", "run/x", "tmp/x", "mnt/x",
        "workspace/x", "proc/x", "dev/x", ".",
    ],
)  # fmt: skip
def test_what_is_the_sandboxs_own_is_left_out(name: str) -> None:
    _, found = layer(archive((name, b"", {}), ("kept", b"", {})))
    assert list(found) == ["kept"]


def test_the_home_of_an_image_is_left_out() -> None:
    """A sandbox has a file system of its own there."""
    packed = archive(("home/user/x", b"", {}), ("home/other", b"", {}))
    assert list(layer(packed, UnixAccount("user", "/home/user"))[1]) == ["home/other"]


def test_what_was_removed_is_marked_as_removed() -> None:
    packed = archive(("etc/.wh.debian_version", b"", {}), ("etc/apt/.wh..wh..opq", b"", {}))
    assert list(layer(packed)[1]) == ["etc/.wh.debian_version", "etc/apt/.wh..wh..opq"]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("../escape", {}),
        ("a/../../escape", {}),
        (".wh..wh.plnk", {}),
        ("a/.wh.", {}),
        ("disk", {"type": tarfile.BLKTYPE, "devmajor": 8}),
        ("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
        ("pipe", {"type": tarfile.FIFOTYPE}),
        ("hard", {"type": tarfile.LNKTYPE, "linkname": "../../etc/shadow"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_template_may_hold_is_refused(name: str, fields: dict[str, object]) -> None:
    with pytest.raises(Invalid, match="the template's files were refused"):
        layer(archive((name, b"", fields)))


def test_more_bytes_than_permitted_are_refused_before_they_are_written() -> None:
    assert list(layer(archive(("a", b"x" * 10, {})), most=10)[1]) == ["a"]
    with pytest.raises(Invalid, match="10 bytes"):
        layer(archive(("a", b"x" * 6, {}), ("b", b"x" * 5, {})), most=10)


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"\0" * 511, b"x" * 1024])
def test_what_is_no_archive_is_refused(content: bytes) -> None:
    if content == b"":
        content = archive(("a", b"x" * 4096, {})).getvalue()[:1024]
    with pytest.raises(Invalid, match="cannot be read"):
        layer(io.BytesIO(content))
