"""The same program started by others on this host, and what stands around it as seen from inside.

Speed is compared with isolation in view: beside each its capabilities, filter and interfaces. Who
is absent is told with the reason. Other ways to start our very container are compared by
`benchmarks/past_the_daemon.py`.
Usage: `python -m benchmarks.peers --rounds 20`.
"""

import asyncio
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cli import PROGRAM, HardenedRun
from benchmarks.harness import PRINT, Deployed, Figures, Sheet, arguments, deployment, publish
from benchmarks.latency import image_id
from runner import telemetry
from runner.settings import Settings

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
PACKAGES = ("llm-sandbox", "swe-rex", "sandlock", "microsandbox", "boxlite")
KVM = {"microsandbox", "boxlite"}


@dataclass(frozen=True)
class Peer:
    """One way to run the program."""

    name: str
    figures: Figures
    isolation: dict[str, Any]


Run = Callable[..., bytes]


def command(*words: str) -> Run:
    """Return what runs a Python program behind these words."""

    def run(*program: str) -> bytes:
        ran = subprocess.run([*words, *program], capture_output=True, check=False, timeout=60)
        if ran.returncode:
            raise RuntimeError(ran.stderr.decode(errors="replace")[-300:] or "it failed")
        return ran.stdout

    return run


@contextmanager
def running(hardened: HardenedRun) -> Iterator[str]:
    """Keep one hardened container running; yield its id."""
    words = hardened.command
    at = words.index("run")
    started = subprocess.run(
        [*words[: at + 1], "--detach", *words[at + 1 :], "sleep", "600"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    container = started.stdout.decode().strip()
    try:
        yield container
    finally:
        subprocess.run(
            [*words[:at], "rm", "--force", container], capture_output=True, check=True, timeout=60
        )


def contenders(settings: Settings, image: str, stack: ExitStack) -> dict[str, Run | str]:
    """Return how each runs a program, or why it is absent."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    hardened = HardenedRun(settings, image, folder)
    docker = [*hardened.command[:3]]
    found: dict[str, Run | str] = {
        "docker run, hardened": hardened.run,
        "docker run, plain": HardenedRun(settings, image, folder, hardened=False).run,
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
    bubble = ("--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev",
              "--tmpfs", "/tmp", "--cap-drop", "ALL", "--die-with-parent")  # noqa: S108  # fmt: skip
    found["bubblewrap on the host's root"] = (
        command("bwrap", *bubble) if shutil.which("bwrap") else "there is no bwrap on this machine"
    )
    for name in PACKAGES:
        if name in KVM and not Path("/dev/kvm").exists():
            found[name] = "it needs /dev/kvm, which this machine has not"
        else:
            found[name] = "this benchmark does not drive it"
    return found


async def ours(deployed: Deployed) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Return how we run the program, and our isolation as seen from inside."""
    caller = await deployed.caller()
    _, answer, _ = await caller.submit({**PRINT, "code": PROBE})
    if answer["state"] != "succeeded":
        raise RuntimeError(f"the probe went wrong: {answer}")
    return lambda: caller.expect(PRINT), json.loads(answer["result"]["stdout"]["content"])


async def measure(rounds: int) -> dict[str, Any]:
    """Measure all in turn, round by round."""
    settings = Settings()
    image = await image_id(settings)
    with ExitStack() as stack:
        found = contenders(settings, image, stack)
        absent = {name: why for name, why in found.items() if isinstance(why, str)}
        runs = {name: run for name, run in found.items() if not isinstance(run, str)}
        took: dict[str, list[float]] = {}
        inside: dict[str, dict[str, Any]] = {}
        for name, run in list(runs.items()):
            try:
                inside[name] = json.loads(run("python3", "-c", PROBE))
            except (RuntimeError, OSError, ValueError) as error:
                absent[name] = str(error)
                del runs[name]
        async with deployment(pool=rounds + 5, pool_max=rounds + 5) as deployed:
            await deployed.settled(rounds + 5)
            run_ours, inside["ours, through HTTP"] = await ours(deployed)
            for _ in range(rounds):
                took.setdefault("ours, through HTTP", []).append(await run_ours())
                for name, run in runs.items():
                    began = time.perf_counter()
                    if await asyncio.to_thread(run, *PROGRAM) != b"1\n":
                        raise RuntimeError(f"{name} put out something else")
                    took.setdefault(name, []).append(time.perf_counter() - began)
    rows = [Peer(name, Figures.of(each), inside[name]) for name, each in took.items()]
    rows.sort(key=lambda each: statistics.median([each.figures.median]))
    return {"rows": rows, "absent": absent}


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures for people."""
    shown = Sheet("ms", "median", "p95", "capabilities", "seccomp", "nnp", "user", "interfaces")
    for each in results["rows"]:
        seen = each.isolation
        shown.add_row(
            each.name, str(each.figures.median), str(each.figures.p95), seen["capabilities"],
            seen["seccomp"], seen["no_new_privs"], str(seen["user"]), " ".join(seen["interfaces"]),
        )  # fmt: skip
    for name, why in results["absent"].items():
        shown.add_row(name, "absent", "", why)
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, rounds=15)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure(given.rounds))
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
