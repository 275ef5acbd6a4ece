"""A root file system is unpacked below the state folder: /tmp may be memory, and small."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.sandbox.engine.rootfs import build_folder
from tests.support.deployment import DISK

UNPACKS = """#!/bin/sh
set -e
folder="$(mktemp -d)"
head -c 4M /dev/zero >"$folder/root"
for argument; do case "$argument" in *.tar) cp "$folder/root" "$argument"; esac; done
rm -r "$folder"
"""
"""Uses the disk like mmdebstrap, at a hundredth of the size."""

# A mount namespace in which /tmp is memory, as on Debian 13, and too small for what is unpacked.
SMALL = """
mount --make-rprivate / && mount --bind "$1" "$2" && shift 2 &&
# A checkout below /tmp stays in sight.
here="$PWD" && mount --bind "$here" /mnt && mount -t tmpfs -o size=1m tmpfs /tmp &&
mkdir -p "$here" && mount --move /mnt "$here" && cd "$here" && exec "$@"
"""

BUILDS = """
import asyncio, sys
from pathlib import Path
from runner.base.recipe import Recipe
from runner.sandbox.engine.rootfs import build_folder, make_archive
async def build(below):
    async with build_folder(below, "what") as folder:
        await make_archive(Recipe(packages=("bash",)), folder / "root.tar", 30)
        print((folder / "root.tar").stat().st_size)
asyncio.run(build(Path(sys.argv[1])))
"""


@pytest.fixture
def disk() -> Iterator[Path]:
    """Return a folder outside /tmp, which the build does not see."""
    with tempfile.TemporaryDirectory(dir=DISK) as folder:
        yield Path(folder)


def test_a_build_takes_no_room_in_tmp(disk: Path) -> None:
    """It succeeds with 1 MiB in /tmp, and leaves nothing in the state folder."""
    fake = disk / "mmdebstrap"
    fake.write_text(UNPACKS)
    fake.chmod(0o755)
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SMALL, "small", fake, "/usr/bin/mmdebstrap",
         sys.executable, "-c", BUILDS, disk / "state"],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, f"{4 * 2**20}\n"), ran.stderr
    assert [path.name for path in (disk / "state" / "build").iterdir()] == ["what.lock"]


async def test_builds_of_one_thing_take_turns(tmp_path: Path) -> None:
    """The second waits for the first one's folder; builds of other things do not wait."""
    async with build_folder(tmp_path, "a") as first:
        (first / "half").touch()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), build_folder(tmp_path, "a"):
                pass
        async with build_folder(tmp_path, "b") as other:
            assert other != first
        assert (first / "half").exists()
    async with build_folder(tmp_path, "a") as second:
        assert list(second.iterdir()) == []


async def test_what_killed_builds_left_is_cleared_away(tmp_path: Path) -> None:
    """Of this build, of another one, and of a release that kept its root here."""
    left = [tmp_path / "build" / name for name in ("a/root", "b/root", "mmdebstrap.x/root")]
    for each in left:
        each.mkdir(parents=True)
    async with build_folder(tmp_path, "a") as folder:
        assert list(folder.iterdir()) == []
        assert [each for each in left if each.exists()] == []


def test_what_a_killed_build_left_mounted_is_unmounted_and_removed(disk: Path) -> None:
    """A killed mmdebstrap leaves /proc in the root that it makes: nothing is removed through it."""
    left = disk / "state" / "build" / "another" / "mmdebstrap.x" / "proc"
    left.mkdir(parents=True)
    subprocess.run(["mount", "-t", "proc", "-o", "ro", "proc", left], check=True)

    async def build() -> list[Path]:
        async with build_folder(disk / "state", "what") as folder:
            return [*folder.iterdir()]

    assert asyncio.run(build()) == []
    assert str(disk) not in Path("/proc/self/mounts").read_text()
