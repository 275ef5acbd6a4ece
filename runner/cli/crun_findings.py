"""The finding of `runner doctor` about crun, which it tries as a worker does before it uses it."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.base.settings import Settings
from runner.cli.host import Finding, Status
from runner.words.errors import RunnerError
from runner.words.sandbox import CRUN, RUNC

NAME = "crun"
_INSTALL = "docs/operations/install.md says how to register it, and which hosts cannot use it"

_BUILD = "build the image, then run `runner doctor` again"


async def crun(settings: Settings, docker: Mapping[str, Any]) -> Finding:
    """Return whether crun would start sandboxes here, and whether it does."""
    from runner.sandbox.engine.runtimes import UNTRIED

    wanted = settings.oci_runtime
    runtime = (docker["info"].get("Runtimes") or {}).get(CRUN)
    if runtime is None:
        if wanted == RUNC:
            return Finding(NAME, Status.OK, "no runtime crun: RUNNER_OCI_RUNTIME is runc")
        return _unused(wanted, "Docker has no runtime of this name")
    fault = await _fault(settings)
    if fault is None:
        version = await _version(settings, runtime)
        use = f"not used: RUNNER_OCI_RUNTIME is {RUNC}" if wanted == RUNC else "used"
        return Finding(NAME, Status.OK, f"{version}: a sandbox starts with it; {use}")
    if fault.startswith(UNTRIED):
        use = {RUNC: "not used", CRUN: "used"}.get(wanted, "runc is used")
        status, advice = (Status.OK, "") if wanted == RUNC else (Status.WARN, _BUILD)
        return Finding(NAME, status, f"{use}: {fault}", advice)
    if wanted == RUNC:
        return Finding(NAME, Status.OK, f"not used, and not fit: {fault}")
    return _unused(wanted, fault)


def _unused(wanted: str, fault: str) -> Finding:
    if wanted == CRUN:
        return Finding(NAME, Status.MISSING, f"workers do not start: {fault}", _INSTALL)
    return Finding(NAME, Status.WARN, f"runc is used: {fault}", _INSTALL)


async def _version(settings: Settings, runtime: Mapping[str, Any]) -> str:
    from runner.sandbox.engine.runtimes import read_crun

    told = await read_crun(settings.docker_url, runtime)
    return told.version if told else "unknown"


async def _fault(settings: Settings) -> str | None:
    from runner.sandbox.launch import Launcher

    with tempfile.TemporaryDirectory(prefix="runner-doctor-") as folder:
        apart = settings.model_copy(update={"state_dir": Path(folder), "oci_runtime": "auto"})
        try:
            opening = Launcher.open(apart, node=apart.node_id, instance="doctor")
            async with opening as launcher:
                return launcher.declined
        except RunnerError as error:
            return f"it cannot be tried: {error.detail}"
