"""Fresh sandboxes without dockerd: what could be gained, and with which isolation.

Each contender is an engine below the product's own launcher, measured from the order to the
supervisor's "ready", then removed. All in turn in one run, so that ratios hold when the machine is
noisy. CPU time is the whole machine's, or that of one control group which the daemon and this
benchmark were put into (`--group`, cgroup v1). Prints tables and one line of JSON; as root:
`python -m benchmarks.past_the_daemon --rounds 5 --seconds 2 --parallel 1,4` is a quick look.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import oci
from benchmarks.contenders import Contender, Field
from benchmarks.harness import DISK
from benchmarks.latency import figures
from runner.base import telemetry
from runner.base.settings import Settings
from runner.quotas.sizes import DEFAULT_SIZE, load_sizes
from runner.sandbox.drive import run
from runner.sandbox.engine.docker import Engine
from runner.verify.bench import PATIENCE_S, Bench
from runner.verify.check import Observation, Probe
from runner.verify.checks import every_check
from runner.verify.suite import series
from runner.verify.surroundings import surroundings
from runner.words.execution import Program
from runner.words.sandbox import Isolation

IDLE = 8
FEW = 3
"""Differences that a cell names; the line of JSON has all."""
INSIDE = """
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
def told(action):
    try: return action()
    except OSError as error: return error.strerror
def status(name):
    return next(x.split()[1] for x in open("/proc/self/status") if x.startswith(name + ":"))
def listed(path): return told(lambda: len(os.listdir(path)))
def size(path): return told(lambda: len(open(path, "rb").read(4096)))
def write(path): return told(lambda: open(path, "w").write("x"))
def unshare():
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "succeeded"
print(json.dumps({
    "uid": os.getuid(), "hostname": os.uname().nodename,
    **{name: status(name) for name in ("CapEff", "CapBnd", "Seccomp", "NoNewPrivs")},
    "processes": sum(x.isdigit() for x in os.listdir("/proc")),
    "interfaces": [x.split(":")[0].strip() for x in list(open("/proc/net/dev"))[2:]],
    **{path: size(path) for path in ("/proc/kallsyms", "/proc/keys", "/proc/timer_list")},
    **{path: listed(path) for path in ("/sys", "/sys/firmware", "/sys/kernel", "/sys/fs/cgroup")},
    **{"write " + path: write(path) for path in ("/usr/x", "/proc/sys/kernel/hostname")},
    "unshare(CLONE_NEWUSER)": told(unshare),
    "workspace MB": os.statvfs("/workspace").f_blocks * os.statvfs("/workspace").f_frsize >> 20,
    "workspace files": os.statvfs("/workspace").f_files,
}))
"""


class Clock:
    """CPU seconds of the whole machine, or of one control group that all that counts is in."""

    def __init__(self, group: str) -> None:
        self._usage = Path("/sys/fs/cgroup/cpuacct") / group / "cpuacct.usage" if group else None

    def read(self) -> float:
        """Return the CPU seconds so far (proc_stat(5): all but idle and iowait)."""
        if self._usage is not None:
            return int(self._usage.read_text()) / 1e9
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        user, nice, system, _, _, irq, softirq = map(int, words[1:8])
        return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


async def once(contender: Contender) -> None:
    """Time one launch and one removal."""
    started = time.perf_counter()
    sandbox = await contender.launcher.launch(contender.order)
    contender.latency_s.append(time.perf_counter() - started)
    started = time.perf_counter()
    await sandbox.destroy()
    contender.removal_s.append(time.perf_counter() - started)


async def window(contender: Contender, seconds: float, parallel: int, clock: Clock) -> None:
    """Start and remove for some seconds: note the rate and the CPU time of each."""
    ends_at = time.monotonic() + seconds
    done = 0

    async def work() -> None:
        nonlocal done
        while time.monotonic() < ends_at:
            await (await contender.launcher.launch(contender.order)).destroy()
            done += 1

    started, used = time.monotonic(), clock.read()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(parallel):
            tasks.create_task(work())
    contender.rates.setdefault(parallel, []).append(done / (time.monotonic() - started))
    contender.cpu_s.append((clock.read() - used) / done)


async def look(contender: Contender, bench: Bench) -> None:
    """Read the memory of several that idle, and the isolation of one from outside and inside."""
    engine = contender.launcher.engine
    own: set[int] = set()
    async with AsyncExitStack() as stack:
        for _ in range(IDLE):
            sandbox = await contender.launcher.launch(contender.order)
            stack.push_async_callback(sandbox.destroy)
            state = await engine.state(sandbox.container.id)
            own |= set(oci.line(int(state["Pid"]), contender.stop_at()))
        await asyncio.sleep(0.5)
        contender.memory_mb = sum(map(pss_mb, own)) / IDLE
        contender.isolation = sandbox.container.isolation
        bounds = load_sizes(bench.settings.profiles_path)[DEFAULT_SIZE].bounds
        ran = await run(sandbox, Program(("python3", "-I", "-c", INSIDE), {}), bounds)
        failed = {"failed": str(ran.ending.not_started)}
        contender.inside = json.loads(ran.stdout) if ran.stdout else failed


def pss_mb(pid: int) -> float:
    """Return a process's share of the memory it maps (proc_pid_smaps(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


async def attack(contender: Contender, bench: Bench) -> None:
    """Try the catalogue's probes in its sandboxes, and keep what did not hold."""
    probes = [check for check in every_check() if isinstance(check, Probe)]
    found: dict[str, Observation] = await series(bench, probes, ())
    contender.breached = {id_: seen.saw for id_, seen in found.items() if seen.breached}
    contender.broken = {
        id_: seen.saw
        for id_, seen in found.items()
        if seen.failed or seen.saw.startswith("LaunchFailed")
    }
    contender.probes_held = len(found) - len({*contender.breached, *contender.broken})


def bench_of(contender: Contender, settings: Settings, facts: dict[str, Any]) -> Bench:
    """Return the product's bench of attacks above a contender, with its own limits."""
    size = load_sizes(settings.profiles_path)["nano"]
    limits = replace(size, timeout_s=PATIENCE_S, cpu=1.0)
    return Bench(contender.launcher, settings, limits, Isolation.CONTAINER, facts, ())


def report(contenders: Sequence[Contender], console: Console) -> list[dict[str, Any]]:
    """Print the tables and return what they show."""
    parallels = list(contenders[0].rates)
    rate_names = (f"/s at {each}" for each in parallels)
    times = ("ready ms", "p95", "removal ms")
    table = Table("fresh sandboxes", *times, *rate_names, "of Docker", "CPU ms", "PSS MB")
    found: list[dict[str, Any]] = []
    best = max(map(statistics.median, contenders[0].rates.values()))
    for each in contenders:
        ready, removal = figures(each.latency_s), figures(each.removal_s)
        rates = {n: round(statistics.median(seen), 1) for n, seen in each.rates.items()}
        row: dict[Any, Any] = {
            "ready": ready.median, "p95": ready.p95, "removal": removal.median, **rates,
            "ratio": round(max(map(statistics.median, each.rates.values())) / best, 2),
            "cpu_ms": round(1000 * statistics.median(each.cpu_s)),
            "pss_mb": round(each.memory_mb, 1),
        }  # fmt: skip
        table.add_row(each.name, *map(str, row.values()))
        found.append({
            "name": each.name, **row, "inside": each.inside,
            "outside": asdict(each.isolation) if each.isolation else None,
            "held": each.probes_held, "breached": each.breached, "broken": each.broken,
        })  # fmt: skip
    console.print(table)
    walls = Table("isolation", *(each.name for each in contenders))
    base = found[0]
    for side in ("outside", "inside"):
        for key in base[side] or ():
            values = [(each[side] or {}).get(key) for each in found]
            if all(value == values[0] for value in values):
                walls.add_row(key, str(values[0])[:40], *["same"] * (len(values) - 1))
            else:
                walls.add_row(key, *(_short(value, values[0]) for value in values))
    walls.add_row("probes held", *(str(each.probes_held) for each in contenders))
    walls.add_row("breached", *(", ".join(each.breached) for each in contenders))
    walls.add_row("not tried", *(", ".join(each.broken) for each in contenders))
    console.print(walls)
    return found


def _short(value: Any, base: Any) -> str:
    if value == base and isinstance(value, (tuple, dict)):
        return "same"
    if isinstance(value, tuple) and isinstance(base, tuple):
        lacks, more = set(base) - set(value), set(value) - set(base)
        if len(lacks | more) > FEW:
            return f"{len(lacks)} lacking, {len(more)} of its own"
        return " ".join(sorted([f"-{each}" for each in lacks] + [f"+{each}" for each in more]))
    if isinstance(value, dict) and isinstance(base, dict):
        return str({name: each for name, each in value.items() if each != base.get(name)})
    return str(value)


async def measure(given: argparse.Namespace, settings: Settings, console: Console) -> Any:
    """Measure all and print."""
    folder = Path(tempfile.mkdtemp(prefix="runner-benchmark-", dir=DISK))
    folder.chmod(0o711)  # noqa: ASYNC240 - one call, at the start
    clock = Clock(given.group)
    parallels = [int(each) for each in given.parallel.split(",")]
    parent = f"/{given.group}/jails" if given.group else ""
    docker = Engine(settings.docker_url, timeout_s=60, threads=16)
    try:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(docker)
            field = Field(settings, docker, folder, parent=parent)
            await field.open(stack, given.nsjail)
            for name, why in field.absent.items():
                console.print(f"absent: {name}: {why}")
            for _ in range(given.rounds):
                for each in field.contenders:
                    await once(each)
            for _ in range(given.repeat):
                for parallel in parallels:
                    for each in field.contenders:
                        await window(each, given.seconds, parallel, clock)
            with surroundings() as facts:
                for each in field.contenders:
                    bench = bench_of(each, settings, facts)
                    await look(each, bench)
                    if given.attack:
                        await attack(each, bench)
            found = report(field.contenders, console)
            versions = await docker.info()
    finally:
        shutil.rmtree(folder)
    return {
        "contenders": found, "absent": field.absent, "kernel": platform.release(),
        "cpus": os.cpu_count(), "docker": versions["version"]["Version"],
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=30, help="launches for the latency")
    arguments.add_argument("--seconds", type=float, default=4.0, help="of each window of a rate")
    arguments.add_argument("--repeat", type=int, default=2, help="windows of each kind")
    arguments.add_argument("--parallel", default="1,2,4,8")
    arguments.add_argument("--attack", action="store_true", help="try the probes in each, too")
    arguments.add_argument("--nsjail", default="nsjail", help="the program's path")
    arguments.add_argument("--group", default="", help="count the CPU time of this cpuacct group")
    telemetry.configure("error", json=False)
    oci.adopt_orphans()
    console = Console(width=200)
    found = asyncio.run(measure(arguments.parse_args(), Settings(), console))
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main()
