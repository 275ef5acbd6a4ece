"""A template's changes as a layer of an image: what a sandbox has packed, made harmless.

The archive comes from a sandbox in which somebody else was root. So every entry of the layer is
written anew from its checked fields: files, folders and links, owned by root, without set-user-ID
bits, devices, capabilities or other attributes. Nothing here is unpacked; Docker does that, in a
root of its own. Names that a sandbox is given anew by its node are left out.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
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
    source: IO[bytes], target: io.BufferedRandom | io.BytesIO, account: UnixAccount, *, most: int
) -> WrittenLayer:
    """Write a layer of what the archive holds; its files have at most `most` bytes, holes included.

    The target must be empty, and readable, too. Raises Invalid if it is no archive, or holds what
    no template may.
    """
    left = most
    try:
        for number, (entry, content) in enumerate(read_entries(source), 1):
            left -= entry.size if entry.isreg() else 0
            if number > MOST_ENTRIES or left < 0:
                raise _refused(
                    f"they are more than {MOST_ENTRIES}, or than {most} bytes, holes included"
                )
            made = _checked(entry, account)
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


def _checked(entry: tarfile.TarInfo, account: UnixAccount) -> tarfile.TarInfo | None:
    """Return the entry as it goes into a layer; None for what is left out."""
    path = _path(entry.name)
    if path == PurePosixPath("/") or _is_ours(path, account):
        return None
    if path.name in _NO_NAMES or (path.name.startswith(".wh..wh.") and path.name != _OPAQUE):
        raise _refused(f"none may be called {path.name!r}")
    made = tarfile.TarInfo(str(path)[1:])
    made.mode, made.mtime = entry.mode & _MODES, min(max(0, int(entry.mtime)), _LATEST)
    if entry.isreg():
        made.size = entry.size
    elif entry.isdir():
        made.type = tarfile.DIRTYPE
    elif entry.issym():
        made.type, made.linkname = tarfile.SYMTYPE, entry.linkname
    elif entry.islnk():
        target = _path(entry.linkname)
        if _is_ours(target, account):
            return None
        made.type, made.linkname = tarfile.LNKTYPE, str(target)[1:]
    else:
        raise _refused(f"{path} is a device, a pipe or a socket")
    return made


def _path(name: str) -> PurePosixPath:
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts or "\0" in name:
        raise _refused(f"none may be called {name[:200]!r}")
    return PurePosixPath("/", *parts)


def _is_ours(path: PurePosixPath, account: UnixAccount) -> bool:
    # What removes a file has its name behind the mark.
    hidden = path.name.removeprefix(WHITEOUT) if path.name != _OPAQUE else ""
    path = path.parent / hidden if hidden else path.parent
    return any(str(each) in OURS or str(each) == account.home for each in (path, *path.parents))


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
