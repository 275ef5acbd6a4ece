"""Folders that come from a sandbox: nothing in a hostile archive reaches out of its target."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_runner import UnsafeArchive, unpacking
from agent_runner.packing import packed
from agent_runner.unpacking import unpack


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> Iterator[bytes]:
    """Yield an archive of these members, in small pieces."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as made:
        for info, content in members:
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    whole = buffer.getvalue()
    return (whole[at : at + 100] for at in range(0, len(whole), 100))


def member(
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    to: str = "",
    mode: int = 0o644,
) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member of an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, to, mode
    return info, content


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return a folder beside which there is a file that must stay as it is."""
    (tmp_path / "secret").write_bytes(b"ours")
    made = tmp_path / "target"
    made.mkdir()
    return made


def link(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind=tarfile.SYMTYPE, to=to)


def hard(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind=tarfile.LNKTYPE, to=to)


@pytest.mark.parametrize(
    "members",
    [
        [member("../secret", b"theirs")],
        [member("{above}/secret", b"theirs")],
        [member("a/../../secret", b"theirs")],
        [link("out", ".."), member("out/secret", b"theirs")],
        [link("out", "../secret"), member("out", b"theirs")],
        [link("out", "../secret")],
        [link("out", "{above}")],
        [member("p/q", kind=tarfile.DIRTYPE), link("p/q/d", "../.."), link("e", "p/q/d/..")],
        [hard("out", "../secret"), member("out", b"theirs")],
        [hard("out", "{above}/secret")],
        [link("a", "b"), hard("out", "a")],
        [member("pipe", kind=tarfile.FIFOTYPE)],
        [member("device", kind=tarfile.CHRTYPE)],
    ],
)
def test_what_would_leave_the_folder_is_left_out(
    target: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    """Everything else is there, and the error says what is not."""
    above = str(target.parent)
    for info, _ in members:
        info.name = info.name.replace("{above}", above)
        info.linkname = info.linkname.replace("{above}", above)
    with pytest.raises(UnsafeArchive, match="not safe"):
        unpack(archive(*members, member("fine", b"fine")), target)
    assert (target.parent / "secret").read_bytes() == b"ours"
    assert (target / "fine").read_bytes() == b"fine"
    for each in target.rglob("*"):
        assert each.resolve().is_relative_to(target), each
        assert each.is_file() or each.is_dir() or each.is_symlink(), each


def test_a_link_that_stands_in_the_folder_is_not_followed(target: Path) -> None:
    """Neither as a folder nor as a file."""
    (target / "out").symlink_to("..")
    (target / "file").symlink_to("../secret")
    with pytest.raises(UnsafeArchive, match="place of something else"):
        unpack(archive(member("out/secret", b"theirs"), member("file", b"new")), target)
    assert (target.parent / "secret").read_bytes() == b"ours"
    assert (target / "file").read_bytes() == b"new"
    assert not (target / "file").is_symlink()


def test_links_that_stay_inside_and_rights_are_kept(target: Path) -> None:
    unpack(
        archive(
            member("bin/tool", b"#!", mode=0o6777),
            link("bin/run", "../bin/tool"),
            hard("again", "bin/tool"),
        ),
        target,
    )
    assert (target / "bin" / "run").read_bytes() == b"#!"
    assert (target / "again").samefile(target / "bin" / "tool")
    # Without the rights of its owner, and for nobody else to write.
    assert (target / "again").stat().st_mode & 0o7777 == 0o755 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_comes_back_as_it_was(tmp_path: Path) -> None:
    """It has names that are not text, empty folders, and files with holes."""
    folder, back = tmp_path / "folder", tmp_path / "back"
    (folder / "empty").mkdir(parents=True)
    (folder / ("long" * 40)).mkdir()
    (folder / ("long" * 40) / "a").write_bytes(os.urandom(1_000_000))
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).write_bytes(b"raw")
    (folder / "link").symlink_to("empty")
    os.mkfifo(folder / "left out")
    unpack(packed(folder), back)
    names = {os.path.relpath(each, folder) for each in folder.rglob("*")} - {"left out"}
    assert {os.path.relpath(each, back) for each in back.rglob("*")} == names
    assert (back / ("long" * 40) / "a").read_bytes() == (folder / ("long" * 40) / "a").read_bytes()
    assert Path(os.fsdecode(os.fsencode(back) + b"/\xff\xfe")).read_bytes() == b"raw"


@pytest.mark.parametrize("cut", [700, 1024, 1500])
def test_an_archive_that_breaks_off_is_told(target: Path, cut: int) -> None:
    whole = b"".join(archive(member("a", b"x" * 2000)))
    with pytest.raises(UnsafeArchive, match="no whole archive"):
        unpack(iter([whole[:cut]]), target)
    with pytest.raises(UnsafeArchive, match="no whole archive"):
        unpack(iter([b"no archive at all" * 100]), target)


def header(kind: bytes, size: int) -> bytes:
    """Return the block that begins a member with this many bytes."""
    info = tarfile.TarInfo("a")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


GREEDY = {
    "a long name": header(tarfile.GNUTYPE_LONGNAME, 2**34),
    "a long target": header(tarfile.GNUTYPE_LONGLINK, 2**34),
    "long facts": header(tarfile.XHDTYPE, 2**34),
    "long facts about all": header(tarfile.XGLTYPE, 2**34),
    "names of names": header(tarfile.GNUTYPE_LONGNAME, 0) * 1500,
}


@pytest.mark.parametrize("what", GREEDY)
def test_what_describes_a_file_does_not_fill_the_memory(target: Path, what: str) -> None:
    """Hardly more of it is taken than may be kept."""
    taken = 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        yield GREEDY[what]
        while True:
            taken += 65536
            yield bytes(65536)

    with pytest.raises(UnsafeArchive, match=r"described by more|recursion"):
        unpack(pieces(), target)
    assert taken <= 2 * unpacking.MOST_HEADER


def test_an_archive_is_bounded_as_a_whole(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsafeArchive, match="more than 100000 bytes"):
        unpack(archive(member("a", b"x" * 200_000)), target, most_bytes=100_000)
    assert (target / "a").stat().st_size <= 100_000
    unpack(archive(member("b", b"x" * 200_000)), target)
    monkeypatch.setattr(unpacking, "MOST_NAMES", 5)
    with pytest.raises(UnsafeArchive, match="more than 5 names"):
        unpack(archive(*(member(f"c/{n}") for n in range(3))), target)
    unpack(archive(*(link(f"l{n}", "a") for n in range(3))), target)
    monkeypatch.setattr(unpacking, "MOST_OF_LINKS", 600)
    with pytest.raises(UnsafeArchive, match="too many links"):
        unpack(archive(*(link(f"l{n}", "a") for n in range(3))), target)


def test_refusals_are_counted_and_long_names_are_cut(target: Path) -> None:
    """A name that is too long for Linux would make thousands of folders."""
    pipes = [member(f"p{n}", kind=tarfile.FIFOTYPE) for n in range(20)]
    with pytest.raises(UnsafeArchive, match="and 16 more") as told:
        unpack(archive(member("d/" * 3000 + "e"), *pipes, member("fine", b"fine")), target)
    assert len(str(told.value)) < 1000
    assert {each.name for each in target.iterdir()} == {"fine"}


def test_facts_about_all_files_are_bounded_together(target: Path) -> None:
    """`tarfile` keeps them all, whichever file they come before."""

    def pieces() -> Iterator[bytes]:
        for number in range(64):
            fact = f"key{number}=".encode() + b"v" * 200_000 + b"\n"
            size = len(fact) + 7
            fact = f"{size} ".encode() + fact
            yield header(tarfile.XGLTYPE, size) + fact + bytes(-size % 512) + header(b"0", 0)
        yield bytes(1024)

    with pytest.raises(UnsafeArchive, match="too many facts"):
        unpack(pieces(), target)


def facts(kind: bytes, raw: bytes) -> Iterator[bytes]:
    """Yield an archive of one empty file with these facts."""
    yield header(kind, len(raw)) + raw + bytes(-len(raw) % 512) + header(b"0", 0) + bytes(1024)


def fact(key: bytes, value: bytes) -> bytes:
    """Return a record: its length counts itself."""
    length, rest = 0, b" " + key + b"=" + value + b"\n"
    while length != len(str(length)) + len(rest):
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


SLOW = {
    "digits alone": b"1" * 20_000,
    "digits in a value": fact(b"comment", b"1" * 20_000),
    "digits behind the facts": fact(b"comment", b"1") + b"\0" + b"1" * 20_000,
    "keys that overlap": b"2 " * 5_000 + b"k=v\n",
    "a length of nothing": b"0 k=v\n",
    "a length beyond the end": b"9999 k=v\n",
    "a length before the value": b"4 k=v\n",
}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE])
@pytest.mark.parametrize("what", SLOW)
def test_facts_that_take_long_to_read_are_refused(target: Path, what: str, kind: bytes) -> None:
    """Some versions of `tarfile` take the square of their length, in time or in memory."""
    with pytest.raises(UnsafeArchive, match="its facts"):
        unpack(facts(kind, SLOW[what]), target)
    assert list(target.iterdir()) == []


def test_facts_of_other_programs_are_read(target: Path) -> None:
    """Names of digits, up to the longest, and values with other signs in them."""
    name = b"1" * 255
    raw = fact(b"path", b"a/" + name) + fact(b"comment", b"1=2\n3 =\xff") + fact(b"mtime", b"1.5")
    unpack(facts(tarfile.XHDTYPE, raw), target)
    assert (target / "a" / name.decode()).stat().st_mtime == 1.5
