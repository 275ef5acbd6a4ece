"""`make guest`: the product on a host as users have it, in a virtual machine, from nothing.

Makes a Debian machine with systemd, control groups v2, AppArmor and Docker, boots it with QEMU,
and runs `doctor`, `demo`, `verify` and some tests in it (`scripts/guest-inside`). The machine has
no network: packages, wheels and the sandbox image are put on its disk, from where this host's own
apt and pip are configured to take them. Without KVM the processor is emulated, and the whole takes
hours instead of minutes; `--steps` and `--limit` run a part.

Needs root, qemu-system-x86, mmdebstrap and mke2fs. Results are in `build/guest/results`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Set as AbstractSet
from pathlib import Path

from packaging.requirements import Requirement

from runner.base.recipe import read_recipe
from runner.sandbox.engine.rootfs import EPOCH, apt_sources, codename, mmdebstrap_command

ROOT = Path(__file__).resolve().parent.parent
HOME = "root/agent-runner"
"""The folder of the code in the guest, from its root."""
PACKAGES = (
    "apparmor", "apt", "ca-certificates", "crun", "dbus", "docker.io", "git", "iproute2",
    "libseccomp2", "linux-image-cloud-amd64", "make", "mmdebstrap", "python3", "python3-venv",
    "redis-server", "runsc", "systemd-sysv", "udev", "util-linux",
)  # fmt: skip
STEPS = ("doctor", "demo", "verify", "tests")
CPU = "Westmere"
"""The newest that QEMU 7.2 emulates correctly: with `max`, it computes AVX wrongly."""
NEEDED = ("qemu-system-x86_64", "mmdebstrap", "mke2fs", "unshare")
SUMMARY = "summary.tsv"


def main() -> int:
    """Make the guest's disk unless it exists, boot it, and report the result of each step."""
    given = arguments()
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        say(f"needs root, and these programs: {', '.join(missing) or 'all there'}")
        return 78
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if given.fresh:
        (folder / "unpacked").unlink(missing_ok=True)
    if not given.as_is:
        build(folder, given.release, given.disk_gb)
    if given.build_only:
        return 0
    results = boot(folder, given)
    return told(results, given.steps)


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--release", default="trixie", help="Debian release of the guest")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "guest")
    parser.add_argument("--fresh", action="store_true", help="unpack the packages anew")
    parser.add_argument("--as-is", action="store_true", help="boot the disk that is there")
    parser.add_argument("--build-only", action="store_true", help="make the disk, boot nothing")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--tests", default="", help="pytest's arguments in place of the choice")
    parser.add_argument("--checks", nargs="*", default=[], help="what verify's checks begin with")
    parser.add_argument("--limit", type=int, default=240, help="minutes the guest may run")
    parser.add_argument("--patience", type=int, default=20, help="the guest's RUNNER_PATIENCE")
    parser.add_argument("--memory-mb", type=int, default=4096)
    parser.add_argument("--disk-gb", type=int, default=12)
    return parser.parse_args()


def build(folder: Path, release: str, disk_gb: int) -> None:
    """Make the guest's kernel and disk: a root file system with everything that the steps need."""
    rootfs = folder / "rootfs"
    if not (folder / "unpacked").exists():
        unpack(folder, rootfs, release)
        (folder / "unpacked").touch()
    say("adding the code and its Python packages")
    copy_code(rootfs / HOME)
    wheels(rootfs)
    configure(rootfs)
    setup(rootfs)
    (kernel,) = (rootfs / "boot").glob("vmlinuz-*")
    (initrd,) = (rootfs / "boot").glob("initrd.img-*")
    shutil.copy(kernel, folder / "vmlinuz")
    shutil.copy(initrd, folder / "initrd")
    say("making the disk")
    partial = folder / "disk.partial"
    partial.unlink(missing_ok=True)
    run("mke2fs", "-q", "-t", "ext4", "-d", rootfs, partial, f"{disk_gb}G", scratch=folder)
    partial.rename(folder / "disk.img")


def unpack(folder: Path, rootfs: Path, release: str) -> None:
    """Unpack the guest's packages, and write the archive of the sandbox image."""
    shutil.rmtree(rootfs, ignore_errors=True)
    sources = sources_of(release, folder / "sources")
    say(f"unpacking Debian {release}")
    run("mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "--format=directory",
        release, rootfs, *sources, scratch=folder)  # fmt: skip
    say("building the root file system of the sandbox image")
    recipe = read_recipe(ROOT / "sandbox_images", "python")
    tar = rootfs / "var/lib/agent-runner/python.tar"
    tar.parent.mkdir(parents=True)
    run(*mmdebstrap_command(recipe, tar, sources, release), scratch=folder)


def sources_of(release: str, folder: Path) -> list[Path]:
    """Write this host's own apt sources, with the guest's release instead of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    # Replace it as a suite's name, not as a part of an address.
    suite = re.compile(rf"(?<![\w./-]){codename()}(?!\w)")
    made = []
    for source in apt_sources(codename()):
        copy = folder / source.name
        copy.write_text(suite.sub(release, source.read_text()))
        made.append(copy)
    return made


def copy_code(home: Path) -> None:
    """Copy the files that git knows, as they are now; the virtual environment stays."""
    home.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(  # noqa: S603 - our own repository
        ["git", "-C", str(ROOT), "ls-files", "-z"],  # noqa: S607 - whichever git there is
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        source = ROOT / name
        if name and source.is_file():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, home / name)


def wheels(rootfs: Path) -> None:
    """Download the locked packages for the guest's Python, by this host's own pip."""
    version = (rootfs / "usr/bin/python3").readlink().name.removeprefix("python")
    folder = rootfs / "wheels"
    folder.mkdir(exist_ok=True)
    wanted = folder / "wanted.lock"
    # pip evaluates markers for the Python that runs it, whatever --python-version says.
    wanted.write_text(locked_for(version, (ROOT / "requirements-dev.lock").read_text()))
    platforms = ("manylinux1", "manylinux2010", "manylinux2014",
                 *(f"manylinux_2_{minor}" for minor in range(5, 42)))  # fmt: skip
    run(sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, "--no-deps",
        "--only-binary=:all:", "--python-version", version, "--implementation", "cp",
        *(f"--platform={name}_x86_64" for name in platforms),
        "--require-hashes", "-r", wanted, scratch=rootfs)  # fmt: skip


def locked_for(version: str, lock: str) -> str:
    """Return the entries of a lock file that apply to this version of Python on Linux."""
    there: dict[str, str | AbstractSet[str]] = {
        "python_version": version, "python_full_version": version, "sys_platform": "linux",
        "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64",
        "platform_python_implementation": "CPython", "implementation_name": "cpython",
    }  # fmt: skip
    kept = []
    for entry in re.split(r"\n(?=[a-z0-9])", lock):
        requirement = Requirement(entry.partition("\\")[0].partition("\n")[0].strip())
        if requirement.marker is None or requirement.marker.evaluate(there):
            _, _, hashes = entry.partition("\\")
            kept.append(f"{requirement.name}{requirement.specifier} \\{hashes}")
    return "\n".join(kept) + "\n"


def setup(rootfs: Path) -> None:
    """Make the guest's virtual environment with `scripts/bootstrap`, as a user would."""
    script = (
        'mount --bind "$1" "$1" && mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && '
        f'exec chroot "$1" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 '
        f"PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels UV_NO_INDEX=1 UV_FIND_LINKS=/wheels "
        f"/{HOME}/scripts/bootstrap"
    )
    run("unshare", "--mount", "--net", "sh", "-c", script, "setup", rootfs, scratch=rootfs)
    shutil.rmtree(rootfs / "wheels")


def configure(rootfs: Path) -> None:
    """Make the guest run `scripts/guest-inside` at its start, and no service that it can spare."""
    files = {
        "etc/hostname": "guest\n",
        "etc/hosts": "127.0.0.1 localhost guest\n::1 localhost\n",
        "etc/fstab": "/dev/vda / ext4 rw 0 1\n",
        "etc/systemd/system/guest.service": (
            "[Unit]\nAfter=multi-user.target docker.service apparmor.service\n"
            "Wants=docker.service\nSuccessAction=poweroff-force\n"
            "FailureAction=poweroff-force\n[Service]\nType=oneshot\n"
            "Environment=HOME=/root LC_ALL=C.UTF-8\nTimeoutStartSec=infinity\n"
            f"ExecStart=/{HOME}/scripts/guest-inside\n"
            "StandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS0\n"
        ),
        # On an emulated processor, everything starts late.
        "etc/systemd/system.conf.d/slow.conf": "[Manager]\nDefaultTimeoutStartSec=30min\n",
        "etc/docker/daemon.json": (
            '{"runtimes": {"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": '
            '["--host-uds=open", "--network=none", "--oci-seccomp"]}, '
            '"crun": {"path": "/usr/bin/crun"}}}\n'
        ),
    }
    for path, text in files.items():
        (rootfs / path).parent.mkdir(parents=True, exist_ok=True)
        (rootfs / path).write_text(text)
    units = rootfs / "etc/systemd/system"
    links = {"default.target.wants/guest.service": "/etc/systemd/system/guest.service"}
    for name in ("redis-server.service", "apt-daily.timer", "apt-daily-upgrade.timer",
                 "man-db.timer", "e2scrub_all.timer", "fstrim.timer",
                 "serial-getty@ttyS0.service"):  # fmt: skip
        links[name] = "/dev/null"
    for name, leads_to in links.items():
        (units / name).parent.mkdir(exist_ok=True)
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to(leads_to)


def boot(folder: Path, given: argparse.Namespace) -> Path:
    """Run the guest until it switches itself off; return the folder of its results."""
    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    told_by = folder / "results.img"
    with told_by.open("wb") as image:
        image.truncate(256 * 2**20)
    # systemd and the script read their settings from the kernel's command line (proc(5)).
    words = {
        "guest.steps": ",".join(given.steps),
        "guest.patience": str(given.patience),
        "guest.checks": ",".join(given.checks),
        "guest.tests": given.tests.replace(" ", ","),
    }
    command = [
        "nice", "-n", "15", "timeout", f"{given.limit}m", "qemu-system-x86_64",
        "-accel", accelerator(), "-cpu", CPU, "-smp", str(min(4, os.cpu_count() or 1)),
        "-m", str(given.memory_mb), "-display", "none", "-no-reboot", "-nic", "none",
        "-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd"), "-append",
        "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0 "
        + " ".join(f"{name}={value}" for name, value in words.items()),
        "-drive", f"file={folder / 'disk.img'},format=raw,if=virtio,snapshot=on,cache=unsafe",
        "-drive", f"file={told_by},format=raw,if=virtio,cache=writethrough",
        "-serial", f"file:{results / 'console.log'}",
        "-device", "virtio-rng-pci",
    ]  # fmt: skip
    say(f"booting; `tail -f {results / 'console.log'}` shows what it does")
    began = time.monotonic()
    # The guest's changes to its disk are thrown away; they must not fill a small /tmp.
    ran = subprocess.run(  # noqa: S603 - as above
        command, env={**os.environ, "TMPDIR": str(folder)}, check=False
    )
    say(f"the guest ran {(time.monotonic() - began) / 60:.0f} minutes (exit code {ran.returncode})")
    with tarfile.open(told_by, "r:", ignore_zeros=False) as archive:
        for member in archive:
            if member.isfile() and "/" not in (name := member.name.removeprefix("./")):
                source = archive.extractfile(member)
                (results / name).write_bytes(source.read() if source else b"")
    return results


def accelerator() -> str:
    """Return `kvm` if it has all that the processor needs: a nested one may lack half of it."""
    tried = subprocess.run(  # noqa: S603 - our own arguments
        ["qemu-system-x86_64", "-accel", "kvm", "-cpu", f"{CPU},enforce", "-S", "-nodefaults",  # noqa: S607
         "-display", "none", "-monitor", "stdio"],
        input="quit\n", text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    chosen = "tcg" if tried.returncode else "kvm"
    say(f"accelerator: {chosen}")
    return chosen


def told(results: Path, steps: list[str]) -> int:
    """Print the result of each step; return 1 if one failed or did not end."""
    summary = results / SUMMARY
    rows = (
        [line.split("\t") for line in summary.read_text().splitlines()] if summary.exists() else []
    )
    for name, code, seconds in rows:
        say(f"{name}: exit code {code} after {seconds} s, see {results / name}.log")
    ended = {name: code for name, code, _ in rows}
    for name in steps:
        if name not in ended:
            say(f"{name}: did not end")
    return 0 if all(ended.get(name) == "0" for name in ("image", *steps)) else 1


def run(*command: str | Path, scratch: Path) -> None:
    """Run a program, which may unpack temporary files to `scratch`."""
    subprocess.run(  # noqa: S603 - our own programs and arguments
        [str(part) for part in command],
        env={**os.environ, "TMPDIR": str(scratch), "SOURCE_DATE_EPOCH": EPOCH},
        check=True,
    )


def say(text: str) -> None:
    """Tell the user."""
    print(f"guest: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
