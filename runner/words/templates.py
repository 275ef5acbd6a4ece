"""The steps of a template, and the names by which its sandboxes refer to it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

DEFAULT_TAG = "default"
START_TAG = "start"
"""The tag of the process that is a template's start command."""
ROOT = "root"
SH, BASH = "/bin/sh", "/bin/bash"
NAME = r"[a-z0-9_-]{1,128}"
"""A template's name, as E2B's clients choose it."""
TAG = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
REFERENCE = rf"[a-z0-9_-][a-z0-9._-]*(:[0-9]+)?(/[a-z0-9._-]+)*(:{TAG}|@{_ID})?"
"""How somebody may name an image: as a registry would, or as a template."""
MOST_REFERENCE = 255
_IMAGE = re.compile(rf"(?P<name>{NAME})@(?P<id>{_ID})")


@dataclass(frozen=True, slots=True)
class RunStep:
    """A command that a shell runs, until its first failure."""

    command: str
    shell: str = SH


@dataclass(frozen=True, slots=True)
class CopyStep:
    """A file to write; a path that is not absolute begins at the working directory."""

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class UnpackStep:
    """Files to write from a tar archive that the tenant has stored.

    Those that match `source` go to `path`: a folder's contents go below it, and so does a file if
    `path` ends in a slash or is a folder.
    """

    path: str
    source: str
    object_key: str
    sha256: str
    user: str | None = None
    """Whose they are; None for the user of the step before."""
    mode: int | None = None
    """Permissions of each file; None for those in the archive."""


@dataclass(frozen=True, slots=True)
class EnvStep:
    """Variables of all further steps and, if they are `kept`, of every process in a sandbox."""

    values: Mapping[str, str]
    kept: bool = True


@dataclass(frozen=True, slots=True)
class WorkdirStep:
    """The working directory of all further steps, made if it is missing.

    Unless it is `kept`, processes of sandboxes do not start there.
    """

    path: str
    kept: bool = True


@dataclass(frozen=True, slots=True)
class UserStep:
    """The user who runs the commands of all further steps: root, or another of the template's.

    The last one is the user of the template's sandboxes, unless it is root.
    """

    name: str


Step: TypeAlias = RunStep | CopyStep | UnpackStep | EnvStep | WorkdirStep | UserStep


@dataclass(frozen=True, slots=True)
class Startup:
    """The command that begins in every sandbox of a template, before anybody uses the sandbox."""

    command: str | None
    """Runs as a process for as long as it likes."""
    ready: str | None
    """Is repeated until it exits with 0."""
    within_s: int
    """How many seconds `ready` has for that."""


def looks_like_an_id(name: str) -> bool:
    """Return whether a name could be the id of a template or a snapshot, and so be no name."""
    try:
        UUID(name)
    except ValueError:
        return False
    return True


def image_of(name: str, template_id: UUID) -> str:
    """Return the name by which a sandbox's image is a template."""
    return f"{name}@{template_id}"


def template_in(image: str) -> UUID | None:
    """Return the template that a sandbox's image is; None if it is one of the operator's images."""
    found = _IMAGE.fullmatch(image)
    return UUID(found["id"]) if found else None
