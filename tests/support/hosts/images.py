"""The images that a machine's Docker daemon has from the beginning, without a copy of their files.

An image's layers lie in a daemon's folder, one folder each, and are only read (the driver
overlay2). So a machine mounts the layers of the daemon that has built the image, read-only, and its
own daemon's records name them. Only these records are copied.

The layout is that of Docker's layer store (moby's `layer/filestore.go` and `image/fs.go`).
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.hosts.machines import Machine

_DRIVER = "overlay2"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass(frozen=True)
class ImageStore:
    """Records of one image, and where the files of its layers are."""

    records: Path
    layers: Sequence[tuple[str, Path]]

    @classmethod
    def of(cls, image_id: str, tag: str, source: Path, folder: Path) -> "ImageStore":
        """Copy the records of an image from a daemon's folder."""
        digest = image_id.removeprefix("sha256:")
        theirs, ours = (each / "image" / _DRIVER for each in (source, folder))
        content = theirs / "imagedb" / "content" / "sha256" / digest
        _copied(content, ours / "imagedb" / "content" / "sha256" / digest)
        (ours / "imagedb" / "metadata" / "sha256").mkdir(parents=True)
        repository = tag.rpartition(":")[0]
        named = {"Repositories": {repository: {tag: image_id}}}
        (ours / "repositories.json").write_text(json.dumps(named))
        layers = []
        for chain in _chains(json.loads(content.read_text())["rootfs"]["diff_ids"]):
            record = theirs / "layerdb" / "sha256" / chain
            shutil.copytree(record, ours / "layerdb" / "sha256" / chain)
            layer = (record / "cache-id").read_text()
            _layer(source / _DRIVER / layer, folder / _DRIVER / layer)
            layers.append((layer, source / _DRIVER / layer / "diff"))
        return cls(folder, layers)

    def copy_to(self, folder: Path) -> Path:
        """Give a machine these records, and return where they are."""
        shutil.copytree(self.records, folder, symlinks=True)
        return folder

    def mount_on(self, machine: Machine, folder: Path) -> None:
        """Mount the layers into a machine's copy; they are gone with its power."""
        # A daemon mounts its folder onto itself unless it is one, which would hide these mounts.
        commands = [f"mount --bind {folder} {folder}"]
        for layer, source in self.layers:
            place = folder / _DRIVER / layer / "diff"
            commands += [f"mount --bind {source} {place}", f"mount -o remount,bind,ro {place}"]
        ran = machine.run(["sh", "-ec", "\n".join(commands)], _ENVIRONMENT)
        assert ran.returncode == 0, ran.stderr


def _chains(differences: Sequence[str]) -> Iterator[str]:
    """Yield the names of an image's layers, from the lowest up (OCI image spec, `ChainID`)."""
    chain = ""
    for each in differences:
        joined = f"{chain} {each}" if chain else each
        chain = f"sha256:{hashlib.sha256(joined.encode()).hexdigest()}" if chain else each
        yield chain.removeprefix("sha256:")


def _layer(theirs: Path, ours: Path) -> None:
    (ours / "diff").mkdir(parents=True)
    for name in ("link", "lower", "committed"):
        if (theirs / name).exists():
            _copied(theirs / name, ours / name)
    if (theirs / "work").exists():
        (ours / "work").mkdir()
    short = ours.parent / "l" / (ours / "link").read_text()
    short.parent.mkdir(exist_ok=True)
    short.symlink_to(Path("..") / ours.name / "diff")


def _copied(theirs: Path, ours: Path) -> None:
    ours.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(theirs, ours)
