"""Which crun is fit for sandboxes, by what it says of itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from runner.sandbox.engine.runtimes import Crun, read_crun, reported, said_by, unfit

DEBIANS = """crun version 1.8.1
commit: f8a096be060b22ccd3d5f3ebe44108517fbf6c30
rundir: /run/crun
spec: 1.0.0
+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF +YAJL
"""
WHOLE = Crun("1.8.1", frozenset({"seccomp", "devices", "systemd"}))
VERSION_1: dict[str, Any] = {"CgroupDriver": "cgroupfs", "CgroupVersion": "1"}
VERSION_2: dict[str, Any] = {"CgroupDriver": "systemd", "CgroupVersion": "2"}
HERE = "unix:///var/run/docker.sock"


def report(version: str = "1.20", **linux: Any) -> str:
    """Return a report of features in the form of the OCI runtime specification."""
    whole = {
        "seccomp": {"enabled": True},
        "cgroup": {"v1": True, "v2": True, "systemd": True},
    }
    return json.dumps(
        {"linux": {**whole, **linux}, "annotations": {"run.oci.crun.version": version}}
    )


def test_debians_crun_is_understood() -> None:
    assert said_by(DEBIANS) == WHOLE


@pytest.mark.parametrize(
    "said", ["", "runc version 1.1.5\n", "crun version UNKNOWN\n", "not crun version 1.8.1\n"]
)
def test_another_programs_words_are_no_crun(said: str) -> None:
    assert said_by(said) is None


def test_dockers_report_of_features_is_understood() -> None:
    assert reported(report()) == Crun("1.20", frozenset({"seccomp", "devices", "systemd"}))
    assert reported(report(seccomp={"enabled": False})) == Crun(
        "1.20", frozenset({"devices", "systemd"})
    )


@pytest.mark.parametrize(
    "features", ["", "[]", "null", "{}", '{"linux": null, "annotations": {}}', report(seccomp={})]
)
def test_a_report_of_another_form_tells_nothing(features: str) -> None:
    assert reported(features) is None


@pytest.mark.parametrize(
    ("version", "fit"),
    [
        ("1.4.3", False), ("1.8", False), ("1.8.0", False), ("1.8.1", True), ("1.8.10", True),
        ("1.14", True), ("1.20", True), ("2.0", True), ("0.17", False),
    ],
)  # fmt: skip
def test_a_version_that_no_test_has_run_is_refused(version: str, *, fit: bool) -> None:
    """So are those before 1.4.4, with CVE-2022-27650."""
    fault = unfit(Crun(version, WHOLE.features), VERSION_1)
    assert (fault is None) is fit
    assert fit or version in str(fault)


@pytest.mark.parametrize(
    ("lacking", "docker", "fit"),
    [
        ("seccomp", VERSION_1, False),
        ("seccomp", VERSION_2, False),
        ("devices", VERSION_1, True),
        ("devices", VERSION_2, False),
        ("systemd", VERSION_1, True),
        ("systemd", VERSION_2, False),
    ],
    ids=lambda value: f"v{value['CgroupVersion']}" if isinstance(value, dict) else str(value),
)
def test_a_crun_without_what_this_host_needs_is_refused(
    lacking: str, docker: dict[str, Any], *, fit: bool
) -> None:
    assert unfit(WHOLE, docker) is None
    fault = unfit(Crun("1.8.1", WHOLE.features - {lacking}), docker)
    assert (fault is None) is fit
    assert fit or f"without {lacking}" in str(fault)


def test_a_crun_that_tells_nothing_is_refused() -> None:
    assert "cannot be read" in str(unfit(None, VERSION_1))


def program(folder: Path, code: str) -> str:
    """Return the path of a script."""
    path = folder / "crun"
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)
    return str(path)


async def test_the_program_is_asked_where_docker_tells_nothing(tmp_path: Path) -> None:
    path = program(tmp_path, f"[ \"$*\" = --version ] && printf '%s' '{DEBIANS}'")
    assert await read_crun(HERE, {"path": path}) == WHOLE


async def test_what_docker_tells_counts_before_the_program(tmp_path: Path) -> None:
    told = {"status": {"org.opencontainers.runtime-spec.features": report("1.21")}}
    path = program(tmp_path, f"touch '{tmp_path}/asked'")
    found = await read_crun(HERE, {"path": path, **told})
    assert found is not None
    assert found.version == "1.21"
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("url", ["tcp://10.0.0.7:2375", "ssh://host"])
async def test_a_daemon_elsewhere_makes_this_host_run_nothing(tmp_path: Path, url: str) -> None:
    """The path that it tells is of its own host."""
    path = program(tmp_path, f"touch '{tmp_path}/asked'; echo '{DEBIANS}'")
    assert await read_crun(url, {"path": path}) is None
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("runtime", [{}, {"path": "crun"}, {"path": "/nonexistent/crun"}])
async def test_a_program_that_is_not_there_tells_nothing(runtime: dict[str, Any]) -> None:
    assert await read_crun(HERE, runtime) is None
