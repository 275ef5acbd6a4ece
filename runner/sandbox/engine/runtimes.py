"""Which of Docker's runtimes starts the sandboxes of isolation `container`: runc, or crun.

crun is taken only if Docker knows it, its version and its features are known and will do, and a
sandbox's container starts with it. So nothing is found out by an execution that fails.
"""

import asyncio
import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runner.base.settings import Settings
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.maker import Maker
from runner.words.errors import ImageMissing, LaunchFailed, SetupError
from runner.words.resources import Resources
from runner.words.sandbox import CRUN, RUNC, SandboxSpec

OLDEST_CRUN = (1, 8, 1)
"""The oldest release that our tests have run. CVE-2022-27650 was fixed in 1.4.4. Later faults do
not reach sandboxes: CVE-2025-24965 needs libkrun, CVE-2026-30892 `exec`, CVE-2026-88264 and 88265
a container without a `/dev` of its own."""
_SAYS_S = 5.0
_FEATURES = "org.opencontainers.runtime-spec.features"
"""Where Docker 25 and newer say what a runtime reported of itself."""
_VERSION = "run.oci.crun.version"

Feature = Literal["seccomp", "devices", "systemd"]
_FLAGS: Mapping[str, Feature] = {"+SECCOMP": "seccomp", "+EBPF": "devices", "+SYSTEMD": "systemd"}
"""What `crun --version` calls them. With cgroup version 2, eBPF is what restricts devices."""
_LACKS: Mapping[Feature, str] = {
    "seccomp": "no filter of system calls would hold",
    "devices": "with cgroup version 2, no restriction of devices would hold",
    "systemd": "it cannot ask systemd for control groups, as Docker here demands",
}
_SMALL = Resources(cpu=1.0, memory_mb=64, pids=32, disk_mb=8)
_TRIAL = "trial-"
UNTRIED = "it cannot be tried yet: "
"""Begins the reason if crun may be fit, but the image to try it with is missing."""


@dataclass(frozen=True, slots=True)
class Crun:
    """What crun says of itself."""

    version: str
    features: frozenset[Feature]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version's numbers, for comparison."""
        return tuple(int(number) for number in re.findall(r"\d+", self.version)[:3])


def said_by(output: str) -> Crun | None:
    """Return what `crun --version` means; None if it is another program's."""
    version = re.search(r"^crun version (\d+(?:\.\d+)+)", output, re.MULTILINE)
    if version is None:
        return None
    return Crun(version[1], frozenset(_FLAGS[flag] for flag in _FLAGS if flag in output.split()))


def reported(features: str) -> Crun | None:
    """Return what the runtime's report of features means (OCI runtime specification, features)."""
    try:
        body = json.loads(features)
        version = body["annotations"][_VERSION]
        linux = body["linux"]
        found: Mapping[Feature, Any] = {
            "seccomp": linux["seccomp"]["enabled"],
            "devices": linux["cgroup"]["v2"],
            "systemd": linux["cgroup"]["systemd"],
        }
    except (ValueError, KeyError, TypeError):
        return None
    return Crun(str(version), frozenset(name for name, there in found.items() if there is True))


async def read_crun(url: str, runtime: Mapping[str, Any]) -> Crun | None:
    """Return what crun says of itself, through Docker or asked here; None if nobody tells."""
    if (features := (runtime.get("status") or {}).get(_FEATURES)) is not None:
        return reported(str(features))
    path = Path(str(runtime.get("path") or ""))
    # Docker looks bare names up in its own PATH; a daemon elsewhere tells of files elsewhere.
    if not (url.startswith("unix://") and path.is_absolute()):
        return None
    try:
        said = await asyncio.to_thread(
            subprocess.run,
            (str(path), "--version"),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_SAYS_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said_by(said.stdout)


def unfit(crun: Crun | None, info: Mapping[str, Any]) -> str | None:
    """Return why sandboxes do not get this crun from the Docker that `info` describes, if so."""
    if crun is None:
        return (
            "its version cannot be read: Docker before 25 does not tell it, and its file is not "
            "here"
        )
    if crun.numbers < OLDEST_CRUN:
        oldest = ".".join(map(str, OLDEST_CRUN))
        return f"its version {crun.version} is older than {oldest}, the oldest that was tested"
    needed: list[Feature] = ["seccomp"]
    if str(info.get("CgroupVersion", "1")) == "2":
        needed.append("devices")
    if info.get("CgroupDriver") == "systemd":
        needed.append("systemd")
    for feature in needed:
        if feature not in crun.features:
            return f"it was built without {feature}: {_LACKS[feature]}"
    return None


async def chosen(
    settings: Settings,
    engine: Engine,
    maker_with: Callable[[str], Maker],
    folder: Path,
    labels: Mapping[str, str],
) -> tuple[Maker, str | None]:
    """Return the maker of sandboxes with the runtime that the settings name, and why not crun.

    Raises SetupError if they name crun alone, and it is not fit.
    """
    if settings.oci_runtime == RUNC:
        return maker_with(RUNC), None
    maker = maker_with(CRUN)
    fault = await _fault_told(engine, settings.docker_url)
    if fault is None:
        spec = SandboxSpec(settings.images[0], _SMALL)
        try:
            # A name of its own: a worker that was killed may have left the folder of its trial.
            home = folder / f"{_TRIAL}{secrets.token_hex(8)}"
            fault = await _fault_tried(maker, engine, spec, home, labels)
        except ImageMissing as error:
            # Who insists on crun gets it, or an error for each sandbox.
            if settings.oci_runtime != CRUN:
                fault = f"{UNTRIED}{error.detail}"
    if fault is None:
        return maker, None
    if settings.oci_runtime == CRUN:
        raise SetupError(f"RUNNER_OCI_RUNTIME is crun, which cannot be used: {fault}")
    return maker_with(RUNC), fault


async def _fault_told(engine: Engine, url: str) -> str | None:
    """Return why Docker's crun is not fit for sandboxes, by what it says; None if it is fit."""
    info = (await engine.info())["info"]
    runtime = (info.get("Runtimes") or {}).get(CRUN)
    if runtime is None:
        return "Docker has no runtime of this name"
    if runtime.get("runtimeArgs"):
        return "it is registered with arguments, which no test has tried"
    return unfit(await read_crun(url, runtime), info)


async def _fault_tried(
    maker: Maker, engine: Engine, spec: SandboxSpec, home: Path, labels: Mapping[str, str]
) -> str | None:
    """Return why a sandbox's container does not start; None if it does. Raises ImageMissing.

    Its supervisor finds nobody to report to, and ends.
    """
    image = await maker.image_of(spec)
    try:
        home.mkdir(mode=0o711)  # noqa: ASYNC240 - one call, at the start
        made = await maker.make(spec, image, home, labels)
        try:
            await engine.start(made.id)
        finally:
            await engine.remove(made.id)
    except LaunchFailed as error:
        return f"a container does not start: {error.detail}"
    except OSError as error:
        return f"this host refused a sandbox: {error.strerror}"
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return None
