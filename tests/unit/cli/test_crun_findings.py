"""`runner doctor` says of crun what a worker would do."""

from pathlib import Path
from typing import Any

import pytest

from runner.base.settings import OciRuntime, Settings
from runner.cli import crun_findings
from runner.cli.host import Status
from runner.sandbox.engine.runtimes import UNTRIED

KNOWN: dict[str, Any] = {"info": {"Runtimes": {"runc": {}, "crun": {"path": "crun"}}}}
UNKNOWN: dict[str, Any] = {"info": {"Runtimes": {"runc": {}}}}


@pytest.mark.parametrize(
    ("wanted", "docker", "fault", "status", "said"),
    [
        ("runc", UNKNOWN, None, Status.OK, "RUNNER_OCI_RUNTIME is runc"),
        ("auto", UNKNOWN, None, Status.WARN, "runc is used: Docker has no runtime"),
        ("crun", UNKNOWN, None, Status.MISSING, "workers do not start: Docker has no runtime"),
        ("runc", KNOWN, None, Status.OK, "not used: RUNNER_OCI_RUNTIME is runc"),
        ("auto", KNOWN, None, Status.OK, "a sandbox starts with it; used"),
        ("crun", KNOWN, None, Status.OK, "a sandbox starts with it; used"),
        ("runc", KNOWN, "it is old", Status.OK, "not used, and not fit: it is old"),
        ("auto", KNOWN, "it is old", Status.WARN, "runc is used: it is old"),
        ("crun", KNOWN, "it is old", Status.MISSING, "workers do not start: it is old"),
        ("runc", KNOWN, UNTRIED, Status.OK, f"not used: {UNTRIED}"),
        ("auto", KNOWN, UNTRIED, Status.WARN, f"runc is used: {UNTRIED}"),
        ("crun", KNOWN, UNTRIED, Status.WARN, f"used: {UNTRIED}"),
    ],
    ids=[
        f"{wanted}, {known}"
        for known in ("not registered", "fit", "not fit", "no image")
        for wanted in ("runc", "auto", "crun")
    ],
)
async def test_what_a_worker_would_do_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: OciRuntime,
    docker: dict[str, Any],
    fault: str | None,
    status: Status,
    said: str,
) -> None:
    """Whatever is not fine comes with advice."""

    async def found(_: Settings) -> str | None:
        return fault

    monkeypatch.setattr(crun_findings, "_fault", found)
    settings = Settings(state_dir=tmp_path, oci_runtime=wanted)
    finding = await crun_findings.crun(settings, docker)
    assert (finding.status, said in finding.value) == (status, True), finding
    assert (finding.advice == "") is (status is Status.OK)
