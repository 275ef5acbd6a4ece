"""Requests of E2B's clients for a template, and its steps as ours."""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field, StringConstraints

from runner.api.e2b.expansion import Variables
from runner.api.e2b.requests import E2bBody, lacks
from runner.api.fields import Strict, Text
from runner.api.template_requests import (
    DEFAULT_READY_S,
    MAX_COMMAND,
    MAX_STEPS,
    MAX_TAGS,
    Command,
    TemplateTag,
    startup_of,
)
from runner.store.files import StoredFile
from runner.words.errors import Invalid
from runner.words.sandbox import UnixAccount, search_path
from runner.words.templates import (
    BASH,
    DEFAULT_TAG,
    NAME,
    ROOT,
    TAG,
    EnvStep,
    RunStep,
    Startup,
    Step,
    UnpackStep,
    UserStep,
)
from runner.words.templates import WorkdirStep as Workdir

_NAME = re.compile(rf"(?P<name>{NAME})(:(?P<tag>{TAG}))?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OCTAL = re.compile(r"[0-7]{3,4}")
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Argument = Annotated[Text, StringConstraints(max_length=MAX_COMMAND)]


class E2bTemplate(E2bBody):
    """A template whose steps will come."""

    name: Annotated[Text, StringConstraints(max_length=128)] | None = None
    alias: Annotated[Text, StringConstraints(max_length=128)] | None = None
    tags: list[TemplateTag] = Field(default_factory=list, max_length=MAX_TAGS)
    cpu_count: int | None = Field(default=None, ge=1, le=1024)
    memory_mb: Annotated[int | None, Field(alias="memoryMB", ge=1, le=2**22)] = None
    min_free_disk_mb: Annotated[None, lacks("a sandbox's size says what its disk holds")] = None

    def named(self) -> tuple[str, list[str]]:
        """Return the name and its tags, of which there is at least one. Raises Invalid."""
        given = self.name or self.alias or ""
        found = _NAME.fullmatch(given)
        if found is None:
            raise Invalid(
                f"{given!r} is no name for a template: up to 128 lower-case letters, digits, "
                "hyphens and underscores, and perhaps a tag after a colon",
                "name",
            )
        tags = list(dict.fromkeys([*([found["tag"]] if found["tag"] else []), *self.tags]))
        return found["name"], tags or [DEFAULT_TAG]

    @property
    def limits(self) -> dict[str, float]:
        """The resources of its sandboxes."""
        asked = {"cpu": self.cpu_count, "memory_mb": self.memory_mb}
        return {name: value for name, value in asked.items() if value is not None}


class NewTags(E2bBody):
    """Tags for what a name with a tag stands for."""

    target: Annotated[Text, StringConstraints(max_length=128)]
    tags: list[TemplateTag] = Field(min_length=1, max_length=MAX_TAGS)


class OldTags(E2bBody):
    """Tags of a name to remove."""

    name: Annotated[Text, StringConstraints(max_length=128)]
    tags: list[TemplateTag] = Field(min_length=1, max_length=MAX_TAGS)


class E2bStep(Strict):
    """A step: what to do, and with what."""

    type: Annotated[str, StringConstraints(max_length=32)]
    args: list[Argument] = Field(default_factory=list, max_length=64)
    files_hash: Annotated[Hash | None, Field(alias="filesHash")] = None
    force: bool | None = None
    force_upload: Annotated[bool | None, Field(alias="forceUpload")] = None


class E2bBuild(E2bBody):
    """The steps of a template."""

    from_image: Annotated[Text, StringConstraints(max_length=256)] | None = None
    from_template: Annotated[Text, StringConstraints(max_length=256)] | None = None
    from_image_registry: Annotated[None, lacks("no registry is used: images are built here")] = None
    force: bool | None = None
    steps: list[E2bStep] = Field(default_factory=list, max_length=MAX_STEPS)
    start_cmd: Command | None = None
    ready_cmd: Command | None = None

    @property
    def startup(self) -> Startup | None:
        """The start command of each of its sandboxes, for bash as a login shell, as in E2B's."""
        start, ready = (
            each and f"exec /bin/bash -l -c {shlex.quote(each)}"
            for each in (self.start_cmd, self.ready_cmd)
        )
        return startup_of(start, ready, DEFAULT_READY_S)

    @property
    def anew(self) -> bool:
        """Whether all steps are to be done."""
        return bool(self.force) or any(each.force for each in self.steps)


def steps_of(
    given: list[E2bStep],
    account: UnixAccount,
    env: Mapping[str, str],
    files: Mapping[str, StoredFile],
    workdir: str | None = None,
) -> Iterator[Step]:
    """Yield the steps; at first, they are the user's and run in its home. Raises Invalid.

    `env` holds the variables of what they build on, and `workdir` its working directory. The last
    user is that of the template's sandboxes, so nobody is root at the end.
    """
    user = account.user
    known = {"PATH": search_path(account.home), "HOME": account.home, "USER": user}
    variables = Variables({**known, **env})
    yield UserStep(user)
    yield Workdir(workdir) if workdir else Workdir(account.home, kept=False)
    last = 0
    for number, each in enumerate(given):
        try:
            for step in _steps(each, user, variables, files):
                if isinstance(step, UserStep):
                    user = step.name
                    last = number
                yield step
        except ValueError as error:
            raise Invalid(f"{each.type}: {error}", f"steps.{number}") from None
    if user.partition(":")[0] == ROOT:
        raise Invalid(
            "USER: nobody is root in a sandbox, so the last user must be another one: add"
            f' set_user("{account.user}"), or USER {account.user} in a Dockerfile. Steps before it'
            " may run as root",
            f"steps.{last}",
        )


def _steps(
    each: E2bStep, user: str, variables: Variables, files: Mapping[str, StoredFile]
) -> Iterator[Step]:
    match each.type.upper(), each.args:
        case "RUN", [command]:
            yield RunStep(command, BASH)
        case "RUN", [command, other]:
            yield UserStep(other or user)
            yield RunStep(command, BASH)
            yield UserStep(user)
        case "WORKDIR", [path]:
            yield Workdir(variables.expanded(path))
        case "USER", [name]:
            yield UserStep(variables.expanded(name))
        case "ENV", [*words] if words and len(words) % 2 == 0:
            yield EnvStep(variables.set(_variables(words)))
        case "ARG", [*words] if words and len(words) % 2 == 0:
            yield EnvStep(variables.set(_variables(words)), kept=False)
        case "COPY", [source, path, *more]:
            yield _copy(each, source, path, more, files)
        case "RUN" | "WORKDIR" | "USER" | "ENV" | "ARG" | "COPY", _:
            raise ValueError("it does not have that many arguments")
        case _:
            raise ValueError("there is no such step here")


def _variables(words: list[str]) -> dict[str, str]:
    found = dict(zip(words[::2], words[1::2], strict=True))
    if wrong := next((name for name in found if not _VARIABLE.fullmatch(name)), None):
        raise ValueError(f"{wrong[:64]!r} is no name of a variable")
    return found


def _copy(
    each: E2bStep, source: str, path: str, more: list[str], files: Mapping[str, StoredFile]
) -> UnpackStep:
    stored = files.get(each.files_hash or "")
    if stored is None:
        raise ValueError("its files were not uploaded, or were deleted")
    owner, mode, *_ = (*more, "", "")
    if mode and not _OCTAL.fullmatch(mode):
        raise ValueError(f"{mode[:16]!r} is no mode")
    return UnpackStep(
        path,
        source,
        stored.object_key,
        stored.sha256,
        owner or None,
        int(mode, 8) if mode else None,
    )
