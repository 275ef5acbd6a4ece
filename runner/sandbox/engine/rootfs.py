"""The root file system of an image: an archive of this host's own Debian or Ubuntu packages."""

import asyncio
import fcntl
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from runner.base.recipe import Recipe
from runner.sandbox.engine.spec import SOCKET_DIR
from runner.sandbox.engine.users import ACCOUNTS
from runner.words.errors import SetupError

BUILD_TIMEOUT_S = 1800
# Fixed, so that the same packages give the same archive (reproducible-builds.org).
EPOCH = "1700000000"
SUPERVISOR_PACKAGES = ("python3", "python3-greenlet")
"""Packages of every image, whatever its recipe says: greenlet runs a program on its own stack."""


def mmdebstrap_command(
    recipe: Recipe, tar: Path, sources: list[Path] | None = None, release: str | None = None
) -> list[str]:
    """Return the command that makes the root file system's archive, of this host's release."""
    release = release or codename()
    hooks = [
        *(f'chroot "$1" sh -ec {shlex.quote(command)}' for command in recipe.commands),
        # Compiled against the root's own paths; a stray Python 2 file is no reason to fail.
        *(f'chroot "$1" python3 -m compileall -q -j 0 {path} || true' for path in recipe.bytecode),
        # no-new-privileges makes them useless; gone is better.
        'find "$1" -xdev -type f -perm /6000 -exec chmod a-s {} +',
        # Each sandbox is a user of its own: its worker writes what the user is called.
        *(f'ln -sf {SOCKET_DIR}/{name} "$1/etc/{name}"' for name in ACCOUNTS),
        # runc gives a tmpfs the mode of the folder it covers, whatever its options say.
        'mkdir -p "$1/run/sandbox" && mkdir -m 0700 "$1/workspace" && chmod 1777 "$1/tmp"',
        'rm -f "$1/etc/machine-id" "$1/var/lib/dbus/machine-id" "$1/etc/hostname"',
        'rm -rf "$1"/var/cache/* "$1"/var/log/*',
        # World-writable folders of the root: read-only in a sandbox, but none is needed.
        'find "$1" -xdev -type d -perm -0002 ! -path "$1/tmp" -exec chmod o-w {} +',
    ]
    return [
        "mmdebstrap",
        "--variant=minbase",
        "--include=" + ",".join(sorted({*SUPERVISOR_PACKAGES, *recipe.packages})),
        # The build is thrown away when it is interrupted: no need for fsync.
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={path}" for path in recipe.exclude),
        # Of two patterns that match a path, the last one counts (dpkg(1)).
        *(f"--dpkgopt=path-include={path}" for path in recipe.include),
        '--aptopt=Acquire::Languages "none"',
        *(f"--customize-hook={hook}" for hook in hooks),
        release,
        str(tar),
        *(str(path) for path in (apt_sources(release) if sources is None else sources)),
    ]


def codename() -> str:
    """Return this host's distribution release, such as bookworm or noble."""
    release = platform.freedesktop_os_release()
    name = release.get("VERSION_CODENAME", "")
    if not re.fullmatch(r"[a-z]+", name):
        raise SetupError("sandbox images are built on Debian or Ubuntu; this host is neither")
    return name


def apt_sources(release: str, folder: Path = Path("/etc/apt")) -> list[Path]:
    """Return the files from which this host's apt takes this release's packages."""
    candidates = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    suite = re.compile(rf"(?<![\w-]){release}(?![\w])")
    found = [
        path
        for path in candidates
        if path.suffix in {".list", ".sources"}
        and path.is_file()
        and suite.search(path.read_text())
    ]
    if not found:
        raise SetupError(f"no file below {folder} names the release {release}")
    return found


async def make_archive(recipe: Recipe, tar: Path, timeout_s: float) -> None:
    """Write the root file system's archive. Raises SetupError with the last words of mmdebstrap."""
    environment = {
        "PATH": os.defpath + ":/usr/sbin:/sbin",
        "SOURCE_DATE_EPOCH": EPOCH,
        "LANG": "C.UTF-8",
        "TMPDIR": str(_unpacked_in(tar.parent)),
    }
    try:
        process = await asyncio.create_subprocess_exec(
            *mmdebstrap_command(recipe, tar),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except FileNotFoundError:
        raise SetupError(
            "mmdebstrap is not installed; on Debian or Ubuntu: apt-get install mmdebstrap"
        ) from None
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except BaseException:
        process.terminate()
        await process.wait()
        raise
    if process.returncode != 0:
        last = output.decode(errors="replace").strip().splitlines()[-5:]
        raise SetupError("mmdebstrap failed: " + " | ".join(last))


@asynccontextmanager
async def build_folder(below: Path, what: str) -> AsyncIterator[Path]:
    """Yield an empty folder in which this is built, once at a time; it is gone afterwards.

    What killed builds left behind, of this or of something else, is removed by the next one.
    """
    builds = below / "build"
    builds.mkdir(parents=True, exist_ok=True)
    folder = builds / what
    with _lock_file(folder).open("w") as lock:
        while not _locked(lock):  # noqa: ASYNC110 - another process holds it
            await asyncio.sleep(0.2)
        await asyncio.to_thread(_clear, builds, folder)
        folder.mkdir()
        # Apt downloads as a user of its own, who passes through.
        for each in (builds, folder):
            each.chmod(0o711)
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder)


def _clear(builds: Path, own: Path) -> None:
    """Remove the folders in which nothing is built any more. `own` is locked by the caller."""
    for folder in [each for each in builds.iterdir() if each.is_dir()]:
        with _lock_file(folder).open("w") as lock:
            if folder == own or _locked(lock):
                _unmount_below(folder)
                # Another build that ends removes its own.
                shutil.rmtree(folder, ignore_errors=folder != own)


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _unmount_below(folder: Path) -> None:
    """Unmount what a killed mmdebstrap has left mounted in its root: /proc, /sys and /dev/pts."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed(places):
        if place.startswith(f"{folder}/"):
            subprocess.run(["/usr/bin/umount", "--lazy", place], check=True)  # noqa: S603 - our own


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unpacked_in(folder: Path) -> Path:
    """Return where mmdebstrap unpacks: in the folder, and not in /tmp, which may be memory.

    Without root it unpacks as a subordinate user, who must pass every folder above (mmdebstrap(1),
    TMPDIR). Where a home is closed to others that leaves /var/tmp, which is on disk (hier(7)).
    """
    open_to_others = all(above.stat().st_mode & 0o001 for above in (folder, *folder.parents))
    return folder if os.geteuid() == 0 or open_to_others else Path("/var/tmp")  # noqa: S108
