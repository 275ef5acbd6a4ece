"""Runs a command in an observing sandbox and returns the system calls that it made.

The sandbox is the one that every execution gets, except that its filter also permits ptrace, so
that an observer inside can follow the command (docs/decisions/0007-learning-by-ptrace.md).
"""

import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyseccomp
from pydantic import TypeAdapter, ValidationError

from runner.base.seccomp import Document, SeccompProfile
from runner.profiles.propose import Call, conditional_arguments
from runner.sandbox.drive import Shelf, launched, use
from runner.sandbox.engine.spec import Host, Placement, container_config
from runner.sandbox.guest.ending import Ending
from runner.sandbox.guest.sandbox import Bridge, Sandbox
from runner.sandbox.launch import Launcher, SandboxOrder
from runner.words.errors import SandboxFault
from runner.words.execution import InputFile, Program
from runner.words.resources import Resources, RunBounds
from runner.words.sandbox import WORKSPACE, SandboxSpec

OBSERVER = Path(__file__).with_name("observer.py")
_PROGRAM, _REPORT = ".observer/observer.py", ".observer/calls.json"
_REPORT_BYTES = 16 * 2**20
_CALLS = TypeAdapter(list[list[int]])


@dataclass(frozen=True, slots=True)
class Observation:
    """The end of the command, and the calls that it made."""

    ending: Ending
    calls: frozenset[Call]
    output: bytes


@dataclass(frozen=True, slots=True)
class NetworkAccess:
    """Gives an observed command its access to the network."""

    environment: Mapping[str, str]
    bridge: Bridge | None = None


OpenAccess: TypeAlias = Callable[[Sandbox], AbstractAsyncContextManager[NetworkAccess]]


@asynccontextmanager
async def no_access(_: Sandbox) -> AsyncIterator[NetworkAccess]:
    """Give no access."""
    yield NetworkAccess({})


def observing(
    placement: Placement, resources: Resources, profile: SeccompProfile, host: Host
) -> dict[str, Any]:
    """Return a sandbox's configuration in which processes may trace each other."""
    document = json.loads(profile.json)
    document["syscalls"].append({"names": ["ptrace"], "action": "SCMP_ACT_ALLOW"})
    traced = dataclasses.replace(profile, json=json.dumps(document))
    return container_config(placement, resources, traced, host)


def unfiltered(
    placement: Placement, resources: Resources, profile: SeccompProfile, host: Host
) -> dict[str, Any]:
    """Return the same without any filter, so that calls after a refusal are seen as well."""
    config = container_config(placement, resources, profile, host)
    config["HostConfig"]["SecurityOpt"] = ["no-new-privileges", "seccomp=unconfined"]
    return config


async def learn(
    launcher: Launcher,
    document: Document,
    command: Sequence[str],
    *,
    spec: SandboxSpec,
    bounds: RunBounds,
    files: Sequence[InputFile] = (),
    way_out: OpenAccess = no_access,
) -> Observation:
    """Observe the command in a sandbox that the launcher configures by one of the two above.

    `way_out` connects the sandbox to an egress proxy while the command runs.

    Raises SandboxFault if the observer did not finish, for example after a time-out.
    """
    tests = {_number(name): indexes for name, indexes in conditional_arguments(document).items()}
    settings = json.dumps({"tests": tests, "report": f"{WORKSPACE}/{_REPORT}"})
    argv = ("python3", "-I", "-S", f"{WORKSPACE}/{_PROGRAM}", settings, *command)
    order = SandboxOrder(spec, tenant="-", execution="profile-learn", attempt="1")
    async with launched(launcher, order) as sandbox, way_out(sandbox) as way:
        ran = await use(
            sandbox,
            Program(argv, way.environment),
            bounds,
            files=[*files, InputFile(_PROGRAM, OBSERVER.read_bytes())],
            grace_s=1.0,
            bridge=way.bridge,
            shelf=Shelf(lambda path, size: path == _REPORT and size <= _REPORT_BYTES),
            max_files=1024,
            max_bytes=spec.resources.disk_mb * 2**20,
        )
    printed = b"".join(chunk for _, chunk in ran.output)
    if _REPORT not in ran.files:
        raise SandboxFault(
            f"the command was not observed to its end ({ran.ending.cause}); "
            "what it printed: " + printed[-500:].decode(errors="replace")
        )
    return Observation(ran.ending, _parse(ran.files[_REPORT], tests), printed)


def _number(name: str) -> int:
    return int(pyseccomp.resolve_syscall(pyseccomp.system_arch(), name))


def _parse(report: bytes, tests: dict[int, tuple[int, ...]]) -> frozenset[Call]:
    """Return the calls by name; leave out numbers that this libseccomp cannot name."""
    try:
        rows = _CALLS.validate_json(report)
    except ValidationError as error:
        raise SandboxFault("the observer's report is not what it writes") from error
    calls = set()
    for number, *arguments in rows:
        name = pyseccomp.resolve_syscall(pyseccomp.system_arch(), number)
        if name is not None:
            text = name.decode() if isinstance(name, bytes) else str(name)
            calls.add(Call(text, tuple(zip(tests.get(number, ()), arguments, strict=True))))
    return frozenset(calls)
