"""The same program, started by other tools on this host, and their isolation seen from inside.

Speed is shown beside isolation: each tool's capabilities, filter and interfaces. A missing tool is
listed with the reason. `benchmarks/past_the_daemon.py` compares other ways to start our very
container. Usage: `python -m benchmarks.peers --rounds 20`; `--peers` adds those of the package
index.
"""

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import packages
from benchmarks.cli import PROGRAM, HardenedRun
from benchmarks.harness import DISK, PRINT, Deployed, Figures, Sheet, arguments, deployment, publish
from benchmarks.latency import image_id
from benchmarks.ways import Ours, Way, command, on_host, running
from runner.base import telemetry
from runner.base.settings import Settings
from runner.cli.operate import engine

PROBE = """
import json, os
said = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)
print(json.dumps({
    'capabilities': said['CapEff'].strip(), 'bounding': said['CapBnd'].strip(),
    'seccomp': said.get('Seccomp', '?').strip(),
    'no_new_privs': said.get('NoNewPrivs', '?').strip(),
    'user': os.geteuid(),
    'interfaces': [line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line],
    'root_writable': os.access('/usr', os.W_OK),
}))
"""

SYSTEM = (
    "--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", "--symlink", "usr/bin", "/bin",
    "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
)  # fmt: skip
"""Not all of `/`: containers' file systems come and go below it, and bubblewrap fails on them."""
OURS = "ours, through HTTP"
NOTE = (
    "From start to the checked result. By Docker the container's removal is in it; a package's own "
    "cleaning up is not, nor is its import. `docker exec`, a pool of llm-sandbox's, bubblewrap and "
    "sandlock share: a container, or the host's files."
)


@dataclass(frozen=True)
class Peer:
    """One way to run the program."""

    name: str
    figures: Figures
    isolation: dict[str, Any]


async def contenders(
    settings: Settings, image: str, stack: ExitStack, *, peers: bool
) -> dict[str, Way | str]:
    """Return how each runs a program, or why it is missing."""
    if peers:
        packages.install_programs()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=DISK)))
    # Users of containers and jails must pass through this folder to their files.
    folder.chmod(0o711)  # noqa: ASYNC240 - one call, at the start
    hardened = HardenedRun(settings, image, folder)
    docker = hardened.command[:3]
    config = Ours(settings, image, folder, stack)
    found: dict[str, Way | str] = {
        "docker run, hardened": Way(hardened.run),
        "docker run, plain": Way(HardenedRun(settings, image, folder, hardened=False).run),
        "Docker API, hardened": config.by_api(),
        "docker exec, hardened container": command(
            *docker, "exec", stack.enter_context(running(hardened))
        ),
    }
    if shutil.which("runsc"):
        found["docker run, gVisor"] = command(
            *docker, "run", "--rm", "--network", "none", "--runtime", "runsc", "--entrypoint", "",
            image,
        )  # fmt: skip
    else:
        found["docker run, gVisor"] = "there is no runsc on this machine"
    bubble = ("--unshare-all", *SYSTEM, "--proc", "/proc", "--dev", "/dev",
              "--tmpfs", "/tmp", "--cap-drop", "ALL", "--die-with-parent")  # noqa: S108  # fmt: skip
    found["bubblewrap on the host's files"] = (
        on_host("bwrap", *bubble) if shutil.which("bwrap") else "there is no bwrap on this machine"
    )
    named = packages.ways(settings, image, folder, stack) if peers else packages.not_asked_for()
    async with engine(settings) as api:
        for program in ("runc", "crun"):
            found[f"{program} run"] = await config.by_bundle(program, api)
        jail = packages.nsjail() if peers else shutil.which("nsjail")
        found["nsjail"] = await config.by_nsjail(jail, api)
    return {**found, **named}


async def ours(deployed: Deployed) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return how we run the program, and our isolation as seen from inside."""
    caller = await deployed.caller()
    _, answer, _ = await caller.submit({**PRINT, "code": PROBE})
    if answer["state"] != "succeeded":
        raise RuntimeError(f"the probe went wrong: {answer}")
    return lambda: caller.expect(PRINT), json.loads(answer["result"]["stdout"]["content"])


async def look(ways: dict[str, Way], absent: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return what each shows from inside; a tool that cannot run the probe counts as missing."""
    inside = {}
    for name, way in list(ways.items()):
        try:
            inside[name] = json.loads(await asyncio.to_thread(way.run, "python3", "-c", PROBE))
            await asyncio.to_thread(way.after)
        except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            absent[name] = " ".join(str(error).split())[:200]
            del ways[name]
    return inside


async def measure(rounds: int, *, peers: bool) -> dict[str, Any]:
    """Measure all in turn, round by round."""
    settings = Settings()
    image = await image_id(settings)
    began_all = time.monotonic()
    with ExitStack() as stack:
        found = await contenders(settings, image, stack, peers=peers)
        absent = {name: why for name, why in found.items() if isinstance(why, str)}
        ways = {name: way for name, way in found.items() if not isinstance(way, str)}
        took: dict[str, list[float]] = {}
        inside = await look(ways, absent)
        async with deployment(pool=rounds + 5, pool_max=rounds + 5) as deployed:
            await deployed.settled(rounds + 5)
            run_ours, inside[OURS] = await ours(deployed)
            for _ in range(rounds):
                took.setdefault(OURS, []).append(await run_ours())
                for name, way in ways.items():
                    began = time.perf_counter()
                    said = await asyncio.to_thread(way.run, *PROGRAM)
                    took.setdefault(name, []).append(time.perf_counter() - began)
                    if said != b"1\n":
                        raise RuntimeError(f"{name} put out something else: {said!r}")
                    await asyncio.to_thread(way.after)
    rows = [Peer(name, Figures.of(each), inside[name]) for name, each in took.items()]
    rows.sort(key=lambda each: each.figures.median)
    return {"rows": rows, "absent": absent, "took_s": round(time.monotonic() - began_all)}


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet("ms", "median", "p95", "capabilities", "seccomp", "nnp", "user", "interfaces")
    for each in results["rows"]:
        seen = each.isolation
        shown.add_row(
            each.name, str(each.figures.median), str(each.figures.p95), seen["capabilities"],
            seen["seccomp"], seen["no_new_privs"], str(seen["user"]), " ".join(seen["interfaces"]),
        )  # fmt: skip
    for name, why in results["absent"].items():
        shown.add_row(name, "absent")
        shown.note(f"{name} is absent: {why.rstrip('.')}.")
    shown.note(NOTE)
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, "peers", rounds=15)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure(given.rounds, peers=given.peers))
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
