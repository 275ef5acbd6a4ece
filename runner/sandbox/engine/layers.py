"""A template's changes as a layer of an image: what a sandbox has packed, made harmless.

The archive comes from a sandbox in which somebody else was root. So every entry of the layer is
written anew from its checked fields: files, folders and links, owned by root, without set-user-ID
bits, devices, capabilities or other attributes. Nothing here is unpacked; Docker does that, in a
root of its own. Names that a sandbox is given anew by its node are left out. They cannot be reached
by another way either: a folder above them stays a folder, and nothing is written through a link
of the layer. A link of a layer below does not matter where Docker unpacks each layer into a folder
of its own, as it does with the storage driver overlay2; `runner doctor` warns of others.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from runner.sandbox.engine.entries import ENCODING, ERRORS, read_entries
from runner.words.errors import Invalid
from runner.words.sandbox import WORKSPACE, UnixAccount

SKELETON = "/opt/skeleton"
"""In a template's image: what its sandboxes begin with in their home."""
OURS = frozenset(
    {
        *("/opt/supervisor", "/opt/contexts", "/run", "/proc", "/sys", "/dev", "/mnt"),
        *("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"),
        *("/tmp", WORKSPACE),  # noqa: S108 - the sandbox's own
    }
)  # fmt: skip
"""Places that no template changes."""
MOST_ENTRIES = 500_000
WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_NO_NAMES = frozenset(f"{WHITEOUT}{name}" for name in ("", ".", ".."))
"""Names of whiteouts that would remove their own folder or the one above it."""
_LATEST = 2**33 - 1
"""The last second that tar's header holds."""
_MODES = 0o1777
"""All bits but those for set-user-ID and set-group-ID."""


@dataclass(frozen=True, slots=True)
class WrittenLayer:
    """A layer that was written: the digest of its bytes, and how many there are."""

    diff_id: str
    size: int


def write_layer(
    source: IO[bytes],
    target: io.BufferedRandom | io.BytesIO,
    account: UnixAccount,
    *,
    most: int,
    moved: bool = False,
) -> WrittenLayer:
    """Write a layer of what the archive holds; its files have at most `most` bytes, holes included.

    If the account's home has `moved`, the layer has the folder over which that is mounted.
    The target must be empty, and readable, too. Raises Invalid if it is no archive, or holds what
    no template may.
    """
    left, layer = most, _Layer(account)
    for each in _home(account) if moved else ():
        target.write(each.tobuf(tarfile.PAX_FORMAT, ENCODING, ERRORS))
    try:
        for number, (entry, content) in enumerate(read_entries(source), 1):
            left -= entry.size if entry.isreg() else 0
            if number > MOST_ENTRIES or left < 0:
                raise _refused(
                    f"they are more than {MOST_ENTRIES}, or than {most} bytes, holes included"
                )
            made = layer.checked(entry)
            if made is not None:
                target.write(made.tobuf(tarfile.PAX_FORMAT, ENCODING, ERRORS))
                target.writelines(content)
                target.write(bytes(-made.size % tarfile.BLOCKSIZE))
    except (tarfile.TarError, ValueError) as error:
        raise _refused(f"they cannot be read: {error}") from error
    target.write(bytes(2 * tarfile.BLOCKSIZE))
    size = target.tell()
    target.seek(0)
    return WrittenLayer(f"sha256:{hashlib.file_digest(target, 'sha256').hexdigest()}", size)


def _home(account: UnixAccount) -> Iterator[tarfile.TarInfo]:
    """Yield what an image has of its home: the folder, and the workspace's link to it."""
    folder = tarfile.TarInfo(account.home[1:])
    # runc gives a tmpfs the mode of the folder it covers, whatever its options say.
    folder.type, folder.mode = tarfile.DIRTYPE, 0o700
    yield folder
    link = tarfile.TarInfo(WORKSPACE[1:])
    link.type, link.mode, link.linkname = tarfile.SYMTYPE, 0o777, account.home
    yield link


class _Layer:
    """What a layer may hold for an account, and the links that it has so far."""

    def __init__(self, account: UnixAccount) -> None:
        self._ours = OURS | {account.home}
        self._above = {str(each) for name in self._ours for each in PurePosixPath(name).parents}
        self._links: set[int] = set()
        """Hashes of their names: half a million of these may be long."""

    def checked(self, entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        """Return an entry as it goes into the layer; None for what is left out. Raises Invalid."""
        path = _path(entry.name)
        if path == "/" or self._is_ours(path):
            return None
        name = path.rpartition("/")[2]
        if name in _NO_NAMES or (name.startswith(".wh..wh.") and name != _OPAQUE):
            raise _refused(f"none may be called {name!r}")
        self._require_no_link_above(path)
        removes = name.startswith(WHITEOUT)
        if _changed(path) in self._above and (removes or not entry.isdir()):
            raise _refused(f"{_changed(path)} has to stay: it holds what is the sandbox's own")
        made = tarfile.TarInfo(path[1:])
        made.mode, made.mtime = entry.mode & _MODES, min(max(0, int(entry.mtime)), _LATEST)
        if entry.isreg():
            made.size = entry.size
        elif entry.isdir():
            made.type = tarfile.DIRTYPE
        elif entry.issym():
            self._links.add(hash(path))
            made.type, made.linkname = tarfile.SYMTYPE, entry.linkname
        elif entry.islnk():
            target = _path(entry.linkname)
            if self._is_ours(target):
                return None
            self._require_no_link_above(target)
            # It may be another name of a symbolic link.
            self._links.add(hash(path))
            made.type, made.linkname = tarfile.LNKTYPE, target[1:]
        else:
            raise _refused(f"{path} is a device, a pipe or a socket")
        return made

    def _is_ours(self, path: str) -> bool:
        changed = _changed(path)
        return any(each in self._ours for each in (changed, *_parents(changed)))

    def _require_no_link_above(self, path: str) -> None:
        """Raise Invalid if whatever unpacks the layer would follow a link, and write elsewhere."""
        if self._links and any(hash(each) in self._links for each in _parents(path)):
            raise _refused(f"{path} is below a link")


def _path(name: str) -> str:
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts or "\0" in name:
        raise _refused(f"none may be called {name[:200]!r}")
    return f"/{'/'.join(parts)}"


def _changed(path: str) -> str:
    """Return the path that an entry changes: what removes a file has its name behind a mark."""
    above, _, name = path.rpartition("/")
    if name == _OPAQUE:
        return above or "/"
    return f"{above}/{name.removeprefix(WHITEOUT)}"


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _refused(why: str) -> Invalid:
    return Invalid(f"the template's files were refused: {why}", "steps")


def write_image(
    target: IO[bytes],
    base: Mapping[str, Any],
    layer: Path,
    made: WrittenLayer,
    *,
    tag: str,
    labels: Mapping[str, str],
) -> None:
    """Write an image as `docker save` does: a base that Docker has, and one layer on it.

    `base` is what Docker tells of the base. Docker finds its layers by their digests.
    """
    below: Sequence[str] = base["RootFS"]["Layers"]
    config = {
        "architecture": base["Architecture"],
        "os": base["Os"],
        # The same on each node, so that each makes the same image of a template.
        "created": "2023-11-14T22:13:20Z",
        "config": {"User": base["Config"]["User"], "Labels": dict(labels)},
        "rootfs": {"type": "layers", "diff_ids": [*below, made.diff_id]},
        "history": [{"created_by": "runner"}] * (len(below) + 1),
    }
    about = json.dumps(config, sort_keys=True).encode()
    name = f"{hashlib.sha256(about).hexdigest()}.json"
    layers = [*(f"{each.removeprefix('sha256:')}/layer.tar" for each in below), "layer.tar"]
    manifest = [{"Config": name, "RepoTags": [tag], "Layers": layers}]
    with tarfile.open(fileobj=target, mode="w") as archive, layer.open("rb") as content:
        for path, text in ((name, about), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
        entry = tarfile.TarInfo("layer.tar")
        entry.size = made.size
        archive.addfile(entry, content)
