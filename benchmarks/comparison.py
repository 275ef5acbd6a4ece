"""The same attacks in four containers, and how many each stops; writes docs/security/comparison.md.

A plain `docker run`; one hardened by the usual advice; ours; ours behind gVisor. All run the same
image and the same probes on the same host, in one run: `make compare`.
"""

import asyncio
import platform
from collections import Counter
from pathlib import Path
from typing import Any

from runner.base.settings import Settings, project_root
from runner.sandbox.launch import NODE_LABEL
from runner.verify.bench import Bench
from runner.verify.check import Group, Observation, Probe
from runner.verify.checks import every_check
from runner.verify.controls import Change
from runner.verify.gvisor import DIFFERENCES
from runner.verify.suite import series
from runner.words.sandbox import Isolation

PAGE = project_root() / "docs" / "security" / "comparison.md"

HEAD = """\
# The same attacks in four containers

Written by `make compare`, which runs it again; nothing here is typed by hand. Each probe of
[the checks](checks.md) that runs inside a sandbox is tried in four containers of the same image:

* **plain**: `docker run`, as root, with Docker's own capabilities, filter and network.
* **advice**: the usual hardening: `--user`, `--cap-drop ALL`, `--security-opt no-new-privileges`,
  `--read-only` with `--tmpfs` for /tmp and the workspace, `--network none`, `--memory`,
  `--pids-limit`, `--cpus`, Docker's default filter.
* **ours**: this product's default.
* **ours, gVisor**: the same behind gVisor's kernel (`isolation: gvisor`).

A probe *holds* when the attack is tried and does not get through; one that cannot be tried, because
gVisor's /proc does not answer it, does not hold. The attacks on the supervisor's protocol, the
queue and the egress proxy have no counterpart in a plain container and are not counted here.
"""


def plain(config: dict[str, Any]) -> None:
    """Make it like a container of `docker run IMAGE`."""
    kept = {name: config[name] for name in ("Image", "Entrypoint", "Cmd", "Env", "Labels")}
    mounts = config["HostConfig"]["Mounts"][:1]
    network = config["Labels"][NODE_LABEL]
    config.clear()
    config.update(kept, User="0:0", HostConfig={"NetworkMode": network, "Mounts": mounts})


def advice(config: dict[str, Any]) -> None:
    """Make it like a container of `docker run` with the usual advice."""
    ours = config["HostConfig"]
    kept = {name: ours[name] for name in ("Memory", "MemorySwap", "NanoCpus", "PidsLimit")}
    user = config["User"]
    plain(config)
    config["User"] = user
    config["HostConfig"] = {
        **kept,
        "Mounts": ours["Mounts"][:1],
        "NetworkMode": "none",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": "", "/workspace": "uid={},gid={}".format(*user.split(":"))},  # noqa: S108 - the sandbox's
    }


COLUMNS: dict[str, tuple[Isolation, tuple[Change, ...]]] = {
    "plain": (Isolation.CONTAINER, (plain,)),
    "advice": (Isolation.CONTAINER, (advice,)),
    "ours": (Isolation.CONTAINER, ()),
    "ours, gVisor": (Isolation.GVISOR, ()),
}


async def compare() -> tuple[list[Probe], dict[str, dict[str, Observation]], str]:
    """Return the probes, what each showed in each column, and the daemon's version."""
    probes = [check for check in every_check() if isinstance(check, Probe)]
    found = {}
    version = ""
    for name, (isolation, changes) in COLUMNS.items():
        async with Bench.open(Settings(), isolation) as bench:
            version = str((await bench.launcher.engine.info())["version"]["Version"])
            found[name] = await series(bench, probes, changes)
        print(f"{name}: {sum(map(stopped, found[name].values()))} hold")
    return probes, found, version


def stopped(seen: Observation) -> bool:
    """Return whether the attack was tried and did not succeed."""
    return not seen.breached and not seen.failed


def page(probes: list[Probe], found: dict[str, dict[str, Observation]], version: str) -> str:
    """Return the page."""
    lines = [HEAD, f"On {platform.system()} {platform.release()}, Docker {version}.\n"]
    lines += ["| group | probes | " + " | ".join(found) + " |", "|---|---|" + "---|" * len(found)]
    held = {
        name: Counter(p.group for p in probes if stopped(seen[p.id]))
        for name, seen in found.items()
    }
    for group in Group:
        total = sum(probe.group is group for probe in probes)
        if total:
            cells = " | ".join(str(held[name][group]) for name in found)
            lines.append(f"| {group.value} | {total} | {cells} |")
    sums = " | ".join(f"**{held[name].total()}**" for name in found)
    lines.append(f"| **all** | **{len(probes)}** | {sums} |")
    lines += ["\n## What only one of ours stops\n", "| check | what it would mean |", "|---|---|"]
    for probe in probes:
        if found["advice"][probe.id].breached and stopped(found["ours"][probe.id]):
            lines.append(f"| {probe.title} | {probe.meaning} |")
    lines += ["\n## What does not hold in gVisor, and why that is acceptable\n"]
    through = [
        f"* {probe.title}: {DIFFERENCES.get(probe.id, found['ours, gVisor'][probe.id].saw)}"
        for probe in probes
        if stopped(found["ours"][probe.id]) and not stopped(found["ours, gVisor"][probe.id])
    ]
    note = (
        "A system call that reaches gVisor's kernel does not reach the host's. Above, a probe "
        "counts as breached if the program's own kernel lets it through, whichever it is.\n"
    )
    lines += [note, *(through or ["Nothing."])]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare, and write the page."""
    PAGE.write_text(page(*asyncio.run(compare())))
    print(Path(PAGE).relative_to(project_root()))


if __name__ == "__main__":
    main()
