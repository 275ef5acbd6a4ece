"""A sandbox's archive becomes a layer of an image only in harmless form."""

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

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


def test_a_home_that_has_moved_is_a_folder_of_its_own_and_the_workspace_leads_to_it() -> None:
    """A template decides about neither, whatever its archive holds."""
    packed = archive(
        ("./home/app", None, {"type": tarfile.SYMTYPE, "linkname": "/etc"}),
        ("./workspace", None, {"type": tarfile.SYMTYPE, "linkname": "/etc"}),
        ("./home/user", None, {"type": tarfile.DIRTYPE, "mode": 0o755}),
    )
    target = io.BytesIO()
    write_layer(packed, target, UnixAccount("app", "/home/app"), most=MOST, moved=True)
    target.seek(0)
    with tarfile.open(fileobj=target) as reading:
        found = [(each.name, each.type, each.mode, each.linkname, each.uid) for each in reading]
    assert found == [
        ("home/app", tarfile.DIRTYPE, 0o700, "", 0),
        ("workspace", tarfile.SYMTYPE, 0o777, "/home/app", 0),
        ("home/user", tarfile.DIRTYPE, 0o755, "", 0),
    ]


def test_the_same_archive_gives_the_same_layer() -> None:
    """Each node makes the same image of a template."""
    one, other = (archive(("a", b"content", {"mtime": 5})) for _ in range(2))
    assert layer(one)[0] == layer(other)[0]


def test_no_file_sets_its_users_id() -> None:
    _, found = layer(archive(("su", b"#!", {"mode": 0o6755}), ("t", b"", {"mode": 0o1777})))
    assert (found["su"].mode, found["t"].mode) == (0o755, 0o1777)


def test_attributes_such_as_capabilities_are_refused() -> None:
    """Their names and values are in pax headers, whose size has no bound."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as writing:
        entry = tarfile.TarInfo("ping")
        entry.pax_headers = {"SCHILY.xattr.security.capability": "all"}
        writing.addfile(entry)
    packed.seek(0)
    with pytest.raises(Invalid, match="GNU format"):
        layer(packed)


def test_headers_for_all_further_entries_are_refused() -> None:
    """`tarfile` copies them for each entry: a small archive would fill the node's memory."""
    packed = io.BytesIO()
    with tarfile.open(
        fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"a": "b"}
    ) as writing:
        writing.addfile(tarfile.TarInfo("file"))
    packed.seek(0)
    with pytest.raises(Invalid, match="GNU format"):
        layer(packed)


def test_a_name_without_a_bound_is_refused() -> None:
    with pytest.raises(Invalid, match="a name is longer"):
        layer(archive(("x/" * 10_000, b"", {})))


def test_long_names_and_names_that_are_no_text_are_kept() -> None:
    name, target = "n" * 300, "t" * 300
    packed = archive(
        (name, b"x", {}),
        ("link", None, {"type": tarfile.SYMTYPE, "linkname": target}),
        ("after", b"y", {}),
        ("\udcff", b"z", {}),
    )
    _, found = layer(packed)
    assert list(found) == [name, "link", "after", "\udcff"]
    assert (found["link"].linkname, found["after"].linkname) == (target, "")


def test_any_number_of_names_before_an_entry_takes_no_stack() -> None:
    name = archive(("n" * 300, b"", {})).getvalue()[: 2 * tarfile.BLOCKSIZE]
    packed = io.BytesIO(name * 5000 + archive(("file", b"", {})).getvalue())
    assert list(layer(packed)[1]) == ["n" * 300]


def test_a_time_that_no_header_holds_becomes_the_latest() -> None:
    _, found = layer(archive(("future", b"", {"mtime": 2**60})))
    assert found["future"].mtime == 2**33 - 1


HOLES = 2**16


def with_holes(folder: Path, *pieces: tuple[int, bytes], size: int) -> io.BytesIO:
    """Return what tar, called as the supervisor calls it, packs of one file."""
    file = folder / "file"
    with file.open("wb") as writing:
        for offset, content in pieces:
            writing.seek(offset)
            writing.write(content)
        writing.truncate(size)
    tar = ["tar", "--create", "--format=gnu", "--sparse", "--file=-", "-C", str(folder), "file"]
    return io.BytesIO(subprocess.run(tar, check=True, capture_output=True).stdout)


@pytest.mark.parametrize("pieces", [0, 1, 3, 40])
def test_holes_of_a_file_are_filled(tmp_path: Path, pieces: int) -> None:
    content = [((2 * each + 1) * HOLES, bytes([each + 1]) * HOLES) for each in range(pieces)]
    packed = with_holes(tmp_path, *content, size=100 * HOLES)
    assert len(packed.getvalue()) < 80 * HOLES
    target = io.BytesIO()
    write_layer(packed, target, AGENT, most=100 * HOLES)
    target.seek(0)
    with tarfile.open(fileobj=target) as reading:
        written = reading.extractfile("file")
        assert written is not None
        assert written.read() == (tmp_path / "file").read_bytes()


def test_holes_count_as_bytes(tmp_path: Path) -> None:
    """Otherwise a build that takes no room would fill the disk of each node."""
    packed = with_holes(tmp_path, size=MOST + 1)
    assert len(packed.getvalue()) < MOST
    with pytest.raises(Invalid, match="holes included"):
        layer(packed)


@pytest.mark.parametrize("damage", ["before_an_earlier_one", "beyond_the_end", "without_end"])
def test_pieces_that_are_no_file_are_refused(tmp_path: Path, damage: str) -> None:
    packed = bytearray(
        with_holes(tmp_path, (HOLES, b"x" * HOLES), (3 * HOLES, b"y"), size=9 * HOLES).getvalue()
    )
    match damage:
        case "before_an_earlier_one":
            packed[410:422] = b"%011o\0" % 0
        case "beyond_the_end":
            packed[483:495] = b"%011o\0" % HOLES
        case _:
            packed[482] = 1
            # Each block of pieces says that another one follows.
            packed[512:] = (bytes(504) + b"\1" + bytes(7)) * 5000
    packed[148:156] = b" " * 8
    packed[148:156] = b"%06o\0 " % sum(packed[:512])
    with pytest.raises(Invalid, match=r"pieces|middle"):
        layer(io.BytesIO(packed))


def summed(header: bytearray) -> bytes:
    """Return a header with the sum that fits."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_a_piece_of_negative_length_hides_no_further_entry() -> None:
    """The file would be longer than its header says, and its end be read as an entry."""
    device = tarfile.TarInfo("disk")
    device.type, device.devmajor = tarfile.BLKTYPE, 8
    hidden = device.tobuf(tarfile.GNU_FORMAT)
    header = bytearray(archive(("file", b"", {})).getvalue()[:512])
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:434] = b"%011o\0%011o\0%011o\0-%010o\0" % (0, 1024, 1024, 512)
    header[124:136] = header[483:495] = b"%011o\0" % 512
    with pytest.raises(Invalid, match="octal digits"):
        layer(io.BytesIO(summed(header) + b"x" * 512 + hidden + bytes(1024)))


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


LINK: dict[str, object] = {"type": tarfile.SYMTYPE, "linkname": "/srv/mine"}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        *(("opt", LINK), ("opt", {"type": tarfile.LNKTYPE, "linkname": "srv"}), ("opt", {})),
        *((name, {}) for name in (".wh.opt", ".wh.etc", ".wh..wh..opq", "opt/.wh..wh..opq")),
        (".wh.etc", {"type": tarfile.DIRTYPE}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_folder_that_holds_what_is_the_sandboxs_own_stays(
    name: str, fields: dict[str, object]
) -> None:
    """Otherwise the programs of PID 1, for instance, would be whatever the template says."""
    kept = ("opt", None, {"type": tarfile.DIRTYPE, "mode": 0o755})
    assert list(layer(archive(kept))[1]) == ["opt"]
    with pytest.raises(Invalid, match="has to stay"):
        layer(archive((name, b"", fields)))


def test_the_folder_above_a_home_stays() -> None:
    packed = archive((".wh.home", b"", {}))
    with pytest.raises(Invalid, match="has to stay"):
        layer(packed, UnixAccount("user", "/home/user"))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("way/supervisor/serve.py", {}),
        ("way/.wh.supervisor", {}),
        ("same/supervisor/serve.py", {}),
        ("hard", {"type": tarfile.LNKTYPE, "linkname": "way/supervisor/serve.py"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_is_written_through_a_link(name: str, fields: dict[str, object]) -> None:
    """By a link to the folder above, it would reach what no template changes."""
    links: list[tuple[str, None, dict[str, object]]] = [
        ("way", None, {"type": tarfile.SYMTYPE, "linkname": "/opt"}),
        ("same", None, {"type": tarfile.LNKTYPE, "linkname": "way"}),
    ]
    assert list(layer(archive(*links, ("ways/file", b"", {})))[1]) == ["way", "same", "ways/file"]
    with pytest.raises(Invalid, match="below a link"):
        layer(archive(*links, (name, b"", fields)))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("../escape", {}),
        ("a/../../escape", {}),
        (".wh..wh.plnk", {}),
        ("a/.wh.", {}),
        ("a/.wh..", {}),
        ("a/.wh...", {}),
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
    with pytest.raises(Invalid, match="10 bytes, holes included"):
        layer(archive(("a", b"x" * 6, {}), ("b", b"x" * 5, {})), most=10)


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"\0" * 511, b"x" * 1024])
def test_what_is_no_archive_is_refused(content: bytes) -> None:
    if content == b"":
        content = archive(("a", b"x" * 4096, {})).getvalue()[:1024]
    with pytest.raises(Invalid, match="cannot be read"):
        layer(io.BytesIO(content))
