"""The work of a build for each step, and the hash by which a step is known again."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from runner.words.errors import Invalid
from runner.words.execution import JSON
from runner.words.sandbox import OTHERS, USER_NAME
from runner.words.templates import (
    ROOT,
    SH,
    CopyStep,
    EnvStep,
    RunStep,
    Step,
    UnpackStep,
    UserStep,
    WorkdirStep,
)
from runner.words.text import counted

MOST_ENV = 32 * 1024
"""Bytes of the variables that one template's steps and its base set."""
MOST_PATH = 4096
"""Bytes of a working directory's path (PATH_MAX of Linux). It grows from step to step."""


@dataclass(frozen=True, slots=True)
class Work:
    """One command for the program inside, what the log says of it, and a file for it."""

    title: str
    command: Mapping[str, JSON]
    content: bytes | None = field(default=None, repr=False)
    object_key: str | None = None
    """A stored file for it, instead."""


@dataclass(slots=True)
class _So:
    """The state that the steps so far leave to those that follow."""

    cwd: PurePosixPath
    user: str = ROOT
    env: dict[str, str] = field(default_factory=dict)


def works(
    steps: Sequence[Step], env: Mapping[str, str], workdir: str | None = None, *, skip: int = 0
) -> Iterator[Work]:
    """Yield what is to be done, with the variables and in the working directory of the base.

    The first `skip` steps are done already: what they set holds for the others. Raises Invalid if a
    working directory's path is longer than `MOST_PATH` bytes.
    """
    so = _So(PurePosixPath(workdir or "/"), env=dict(env))
    for number, step in enumerate(steps, 1):
        work = _work(step, so, f"[{number}/{len(steps)}]")
        if work is not None and number > skip:
            yield work


def _work(step: Step, so: _So, where: str) -> Work | None:
    match step:
        case RunStep(command, shell):
            does: dict[str, JSON] = {
                "do": "run",
                "command": [shell, "-ec", command],
                "user": so.user,
                "cwd": str(so.cwd),
                "env": dict(so.env),
            }
            return Work(f"{where} RUN {command}", does)
        case CopyStep(path, content, mode):
            does = {"do": "copy", "path": path, "mode": mode, "cwd": str(so.cwd)}
            return Work(f"{where} COPY {path} ({counted(len(content), 'byte')})", does, content)
        case UnpackStep():
            does = {
                "do": "unpack",
                "path": step.path,
                "source": step.source,
                "user": step.user or so.user,
                "mode": step.mode,
                "cwd": str(so.cwd),
            }
            title = f"{where} COPY {step.source} {step.path}"
            return Work(title, does, object_key=step.object_key)
        case WorkdirStep(path):
            so.cwd /= path
            if len(str(so.cwd).encode()) > MOST_PATH:
                raise Invalid(f"{where} WORKDIR: its path has more than {MOST_PATH} bytes", "steps")
            does = {"do": "workdir", "cwd": str(so.cwd), "user": so.user}
            return Work(f"{where} WORKDIR {so.cwd}", does)
        case EnvStep(values):
            so.env |= values
        case UserStep(name):
            so.user = name
    return None


def kept_env(steps: Sequence[Step], env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that every process in a sandbox gets, with those of the base.

    Raises Invalid if all that are set take more than `MOST_ENV` bytes: each row of a template holds
    them, and so does the command line of each step.
    """
    kept, size = dict(env), size_of(env)
    for step in steps:
        if isinstance(step, EnvStep):
            size += size_of(step.values)
            if step.kept:
                kept |= step.values
    if size > MOST_ENV:
        raise Invalid(
            f"the variables of all steps and of the base take {size} bytes; {MOST_ENV} are allowed",
            "steps",
        )
    return kept


def kept_workdir(steps: Sequence[Step], workdir: str | None) -> str | None:
    """Return the folder in which processes of a sandbox start, or that of the base.

    None if none of them names one.
    """
    kept = workdir and PurePosixPath(workdir)
    so_far = kept or PurePosixPath("/")
    for step in steps:
        if isinstance(step, WorkdirStep):
            so_far /= step.path
            kept = so_far if step.kept else kept
    return str(kept) if kept else None


def last_user(steps: Sequence[Step]) -> str | None:
    """Return the user of the last step that names one, without a group."""
    names = (each.name for each in reversed(steps) if isinstance(each, UserStep))
    return next((name.partition(":")[0] for name in names), None)


def kept_user(steps: Sequence[Step], user: str | None) -> str | None:
    """Return the user of a template's sandboxes, or that of the base. None for the image's own.

    Root is the steps' alone. Raises Invalid if no sandbox can have the user who was named last.
    """
    name = last_user(steps)
    if name in {None, ROOT}:
        return user
    if name in OTHERS or re.fullmatch(USER_NAME, name or "") is None:
        raise Invalid(
            f"no sandbox can have {name!r:.40} as its user, whom these steps name last: name one "
            "whose name has up to 31 lower-case letters, digits, hyphens and underscores",
            "steps",
        )
    return name


def size_of(values: Mapping[str, str]) -> int:
    """Return the bytes that variables count as."""
    return sum(len(name) + len(value.encode()) for name, value in values.items())


def hashes(base: str, steps: Sequence[Step]) -> tuple[str, ...]:
    """Return for each step a hash of it and of all before it, from the base on.

    The base is an image's name, or the last hash of a template and its working directory. Not all
    that its steps have set holds for these, so the same steps in one template have other hashes.
    """
    found = []
    total = hashlib.sha256(base.encode()).hexdigest()
    for step in steps:
        total = hashlib.sha256(f"{total} {_text(step)}".encode()).hexdigest()
        found.append(total)
    return tuple(found)


def _text(step: Step) -> str:
    match step:
        case RunStep(command, shell):
            # The usual shell is not told, so that templates of earlier releases are known again.
            told: JSON = ["run", command, *([] if shell == SH else [shell])]
        case CopyStep(path, content, mode):
            told = ["copy", path, hashlib.sha256(content).hexdigest(), mode]
        case UnpackStep():
            told = ["unpack", step.path, step.source, step.sha256, step.user, step.mode]
        case EnvStep(values, kept):
            told = ["env", dict(values), kept]
        case WorkdirStep(path):
            told = ["workdir", path]
        case UserStep(name):
            told = ["user", name]
    return json.dumps(told, sort_keys=True)
