"""Masks over files of the kernel that tell of the host without being of use to a program.

runc covers a file with the container's own `/dev/null`. crun takes the host's: one inode for all
sandboxes and the host itself. Through it, a program sees each time that anything on the host opens
`/dev/null` (inotify(7)), and sandboxes see each other's locks (flock(2)). Newer releases of crun
also cover all folders with one that containers share (its pull request 1859). So crun's sandboxes
get masks of their own: an empty file that only this sandbox has, and an empty file system for each
folder. runc would refuse mounts below /proc, and needs none.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

MASKED = (
    # Docker's defaults, and what else tells of the host.
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/irq",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/pressure",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sys/kernel/random/boot_id",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/class/dmi",
    "/sys/devices/virtual/dmi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/cgroup",
    "/sys/kernel",
)
MASK = "masked"
"""The empty file in a sandbox's own folder."""
_EMPTY = "ro,nosuid,nodev,noexec,size=4k,nr_inodes=1,mode=0555"


@dataclass(frozen=True, slots=True)
class Masks:
    """Which masks the runtime makes, and which we mount."""

    by_runtime: tuple[str, ...] = MASKED
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    def mounts(self, folder: Path) -> list[dict[str, Any]]:
        """Return the mounts that cover files, for the sandbox whose own folder this is."""
        return [
            {
                "Type": "bind",
                "Source": str(folder / MASK),
                "Target": path,
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rprivate"},
            }
            for path in self.files
        ]

    def tmpfs(self) -> dict[str, str]:
        """Return the file systems that cover folders, with their options."""
        return dict.fromkeys(self.folders, _EMPTY)

    def write(self, folder: Path) -> None:
        """Write what is mounted, into the sandbox's own folder."""
        if self.files:
            path = folder / MASK
            path.touch()
            path.chmod(0o444)


RUNTIMES_OWN = Masks()
"""The masks of a sandbox whose runtime makes all of them."""


def own_masks(root: Path = Path("/")) -> Masks:
    """Return the masks of a sandbox that shares none of them.

    Nothing can be mounted on what this kernel does not have: the runtime masks it if it is there
    after all.
    """
    places = {path: root / path.lstrip("/") for path in MASKED}
    folders = tuple(path for path, place in places.items() if place.is_dir())
    files = tuple(path for path, place in places.items() if path not in folders and place.exists())
    return Masks(tuple(path for path in MASKED if path not in {*folders, *files}), files, folders)
