"""crun in runc's place weakens nothing: the same facts, the same attacks, and no shared masks."""

import asyncio
import fcntl
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from runner.base.settings import OciRuntime, Settings
from runner.cli.app import app
from runner.sandbox.drive import use
from runner.sandbox.engine.masks import MASKED, RUNTIMES_OWN
from runner.sandbox.observe.isolation import EffectiveIsolation
from runner.verify.bench import Bench
from runner.verify.check import Check
from runner.verify.checks import every_check
from runner.verify.guests import LIVING_WAYS, Way
from runner.verify.suite import CheckResult, CheckVerdict, run, tried
from runner.words.execution import Program
from tests.security.test_checks import MAY_BE_UNSHOWN, MEASURED, judge
from tests.support import sandboxes

CRUN = Settings(oci_runtime="crun")
BY_THE_RUNTIME = (
    "files.device", "files.mqueue", "files.no", "files.null", "privileges.capabilities",
    "privileges.groups", "privileges.no-new-privileges", "privileges.user", "proc.",
)  # fmt: skip
"""Beginnings of the ids of checks whose controls the runtime sets up."""
CHECKS = every_check()
BRIEF = tuple(check for check in CHECKS if check.id.startswith(BY_THE_RUNTIME))


async def outcomes(checks: tuple[Check, ...], *ways: Way) -> dict[str, CheckResult]:
    """Return what became of these checks under crun."""
    async with Bench.open(CRUN, ways=ways or (Way.EXECUTION,)) as bench:
        assert bench.launcher.maker.host.runtime == "crun"
        return {each.check.id: each async for each in run(bench, checks)}


def hold(
    checks: tuple[Check, ...], found: Mapping[str, CheckResult], unshown: float = MAY_BE_UNSHOWN
) -> None:
    """Demand that each check held, and that most were shown to be able to fail."""
    for check in checks:
        judge(check, found[check.id])
    verdicts = Counter(each.verdict for each in found.values())
    assert verdicts[CheckVerdict.UNSHOWN] <= unshown * len(checks), verdicts


@pytest.mark.timeout(600)
async def test_what_the_runtime_sets_up_stops_the_attacks_on_it(image: None) -> None:
    """None of them is stopped without its control."""
    assert len(BRIEF) >= 50
    hold(BRIEF, await outcomes(BRIEF), unshown=0.5)


@pytest.mark.matrix
@pytest.mark.timeout(1800)
async def test_every_attack_of_the_catalogue_is_stopped(image: None) -> None:
    """The catalogue is whole, apart from checks that need a host with nothing else to do."""
    checks = tuple(check for check in CHECKS if check.id not in MEASURED)
    hold(checks, await outcomes(checks))


@pytest.mark.matrix
@pytest.mark.timeout(1800)
async def test_every_attack_on_a_living_sandbox_is_stopped(image: None) -> None:
    """So are those after a pause, on a terminal, and in a copy."""
    checks = tuple(check for check in tried(CHECKS, living=True) if check.id not in MEASURED)
    hold(checks, await outcomes(checks, *LIVING_WAYS))


@dataclass(frozen=True)
class Facts:
    """What holds for the first process of a sandbox."""

    isolation: EffectiveIsolation
    status: Mapping[str, str]
    oom_score_adj: str
    devices: frozenset[str]
    inside: bytes


INSIDE = """
import os
# crun makes /dev/core, a link to a masked file, even on kernels without that file.
for name in sorted({*os.listdir("/dev")} - {"core"}):
    found = os.lstat(f"/dev/{name}")
    print(name, oct(found.st_mode), found.st_uid, found.st_rdev)
for name in ("max_user_namespaces", "ngroups_max"):
    print(name, os.path.exists(f"/proc/sys/user/{name}"))
print(sorted(os.environ.items()))
print(os.getcwd(), os.umask(0), os.getpgid(0) > 0, sorted(os.listdir("/proc/self/fd")))
print(open("/proc/self/cgroup").read())
"""
PRIVILEGES = (
    "Umask", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
    "Seccomp_filters", "Speculation_Store_Bypass", "SigIgn", "Cpus_allowed", "Mems_allowed",
)  # fmt: skip


async def facts(tmp_path: Path, runtime: OciRuntime) -> Facts:
    """Return what holds in a sandbox that this runtime started."""
    opening = sandboxes.bench(tmp_path / runtime, oci_runtime=runtime)
    async with opening as bench, bench.sandbox() as sandbox:
        isolation = sandbox.container.isolation
        assert isolation is not None
        found = await bench.launcher.engine.inspect(sandbox.container.id)
        assert found is not None
        proc = Path(f"/proc/{found['State']['Pid']}")
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
        groups = dict(line.split(":", 2)[1:] for line in (proc / "cgroup").read_text().splitlines())
        devices = Path("/sys/fs/cgroup/devices", groups.get("devices", "").lstrip("/"))
        listed = devices / "devices.list"
        program = Program(("python3", "-c", INSIDE), {})
        ran = await use(sandbox, program, bench.limits.bounds)
        uid = str(isolation.uid).encode()
        return Facts(
            replace(isolation, runtime="", uid=0, gid=0, groups=(), mounts=tuple(
                each.replace(str(isolation.uid), "UID") for each in isolation.mounts
            )),
            {name: status[name].replace(str(isolation.uid), "UID") for name in PRIVILEGES},
            (proc / "oom_score_adj").read_text(),
            frozenset(listed.read_text().splitlines() if listed.exists() else ()),
            ran.stdout.replace(uid, b"UID"),
        )  # fmt: skip


def by_target(mounts: tuple[str, ...]) -> dict[str, set[str]]:
    """Return the flags of the uppermost mount of each place."""
    return {each.split(" ")[0]: set(each.split(" ")[2].split(",")) for each in mounts}


async def test_crun_and_runc_make_the_same_sandbox(tmp_path: Path, image: None) -> None:
    """Privileges, limits and devices are equal, and each mask is there. Two mounts lack flags.

    Their loss means nothing: no file in /proc/sys or /dev/pts can be executed.
    """
    runc, crun = await facts(tmp_path, "runc"), await facts(tmp_path, "crun")
    assert runc.status["Seccomp"] == "2"
    # crun leaves the shim's, one more than the daemon's: sandboxes are killed before it.
    assert (int(crun.oom_score_adj), int(runc.oom_score_adj)) in {(0, 0), (1, 0)}
    # runc also permits /dev/net/tun, which is in no sandbox.
    assert runc.devices - crun.devices <= {"c 10:200 rwm"}
    assert crun.devices <= runc.devices
    assert (crun.status, crun.inside) == (runc.status, runc.inside)
    assert replace(crun.isolation, mounts=()) == replace(runc.isolation, mounts=())
    theirs, ours = by_target(runc.isolation.mounts), by_target(crun.isolation.mounts)
    # runc also leaves the control groups mounted, below the mask.
    assert {place for place in theirs if not place.startswith("/sys/fs/cgroup/")} == set(ours)
    lost = {place: theirs[place] - ours[place] for place in ours if place not in MASKED}
    assert {place: flags for place, flags in lost.items() if flags} == {
        "/dev/pts": {"nosuid", "noexec"},
        "/proc/sys": {"nosuid", "nodev", "noexec"},
    }


async def test_nothing_can_be_executed_where_crun_drops_noexec(tmp_path: Path, image: None) -> None:
    """So neither `noexec` nor `nosuid` would forbid anything there."""
    code = (
        "import os, stat\n"
        "for top in ('/proc/sys', '/dev/pts'):\n"
        "    for folder, _, names in os.walk(top):\n"
        "        for name in names:\n"
        "            mode = os.lstat(os.path.join(folder, name)).st_mode\n"
        "            if top == '/proc/sys' and not stat.S_ISREG(mode): print(name)\n"
        "            if mode & 0o7111: print(name, oct(mode))\n"
        "print('looked')\n"
    )
    async with sandboxes.bench(tmp_path, oci_runtime="crun") as bench:
        ran = await bench.python(code)
    assert ran.stdout == b"looked\n", ran.stderr


LOOKS = """
import fcntl, os, time
places = [each for each in {places!r} if os.path.exists(each)]
print(len(places), flush=True)
held = []
until = time.monotonic() + 3
while time.monotonic() < until and not held:
    for place in places:
        found = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
        try: fcntl.flock(found, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError: held.append(place)
        os.close(found)
    time.sleep(0.1)
print('held' if held else 'free')
"""


async def test_a_sandbox_shares_no_mask_with_the_host(tmp_path: Path, image: None) -> None:
    """With crun's own masks, it sees a lock on the host's /dev/null: that is the control."""
    assert await seen(tmp_path / "ours") == b"free\n"
    assert await seen(tmp_path / "cruns", masks=RUNTIMES_OWN) == b"held\n"


async def seen(tmp_path: Path, **changes: Any) -> bytes:
    """Return whether a sandbox notices that this process has locked the host's /dev/null."""
    async with sandboxes.bench(tmp_path, oci_runtime="crun") as bench:
        maker = bench.launcher.maker
        maker.host = replace(maker.host, **changes)
        code = LOOKS.format(places=RUNTIMES_OWN.by_runtime)
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            await asyncio.to_thread(fcntl.flock, null, fcntl.LOCK_EX)
            ran = await bench.python(code, timeout_s=20)
        finally:
            os.close(null)
    count, _, said = ran.stdout.partition(b"\n")
    assert int(count) >= 5, ran.stderr
    return said


async def test_two_sandboxes_share_no_mask(tmp_path: Path, image: None) -> None:
    """No place that is masked is the same file or folder in both."""
    code = (
        f"import os\nfor place in {RUNTIMES_OWN.by_runtime!r}:\n"
        "    if os.path.exists(place):\n"
        "        found = os.stat(place); print(place, found.st_dev, found.st_ino)\n"
    )
    found = []
    async with sandboxes.bench(tmp_path, oci_runtime="crun") as bench:
        for masks in (bench.launcher.maker.host.masks, RUNTIMES_OWN):
            bench.launcher.maker.host = replace(bench.launcher.maker.host, masks=masks)
            async with bench.sandbox() as one, bench.sandbox() as other:
                program = Program(("python3", "-c", code), {})
                looks = [await use(each, program, bench.limits.bounds) for each in (one, other)]
            first, second = (set(look.stdout.splitlines()) for look in looks)
            assert len(first) >= 5
            found.append(first & second)
    assert found[0] == set()
    # The control.
    assert found[1] != set()


def test_a_report_of_runner_verify_names_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: None
) -> None:
    """So nobody takes one about runc for one about crun."""
    monkeypatch.setenv("RUNNER_STATE_DIR", str(tmp_path))
    for runtime in ("runc", "crun"):
        monkeypatch.setenv("RUNNER_OCI_RUNTIME", runtime)
        told = CliRunner().invoke(app, ["verify", "--group", "files.null", "--json"])
        assert told.exit_code == 0, told.output
        body = json.loads(told.stdout)["body"]
        assert body["runtime"] == runtime
