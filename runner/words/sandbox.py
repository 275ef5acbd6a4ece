"""Facts about a sandbox and about its making, whoever uses it."""

from dataclasses import dataclass
from enum import StrEnum

from runner.words.resources import Resources

WORKSPACE = "/workspace"
"""The program's working directory in every sandbox, and the only place artifacts come from.

An image may have it elsewhere (`UnixAccount.home`); there, this name is a link to it.
"""
USER = "agent"
"""The name of a sandbox's user unless the image says otherwise."""
HOMES = "/home"
"""Where the users have their homes whom templates name."""
USER_NAME = r"[a-z][a-z0-9_-]{0,30}"
OTHERS = frozenset({"root", "nobody", "nogroup", "tty"})
"""Names that belong to others in every sandbox: its user has none of them."""

PACKAGES = ".local"
"""The folder of the workspace below which pip and npm install. No artifacts come from it."""


def search_path(home: str) -> str:
    """Return where programs are found by their names, in a sandbox with its workspace there."""
    return f"{home}/{PACKAGES}/bin:/usr/local/bin:/usr/bin:/bin"


class Isolation(StrEnum):
    """The wall between a program and the host's kernel, beyond the container's own walls."""

    CONTAINER = "container"
    GVISOR = "gvisor"


RUNC, CRUN, RUNSC = "runc", "crun", "runsc"
"""Docker's names of the runtimes that sandboxes are started with."""
SHARE_THE_KERNEL = frozenset({RUNC, CRUN})
"""Runtimes whose programs are processes of the host's kernel, which can look at them."""


@dataclass(frozen=True, slots=True)
class UnixAccount:
    """Whom the programs of an image run as: a name, and the folder that is theirs."""

    user: str = USER
    home: str = WORKSPACE


AGENT = UnixAccount()


def account_called(name: str | None, own: UnixAccount) -> UnixAccount:
    """Return the account of a template whose user has this name, on an image whose own is `own`."""
    if name is None or name == own.user:
        return own
    return UnixAccount(name, f"{HOMES}/{name}")


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """The specification that a sandbox is made from."""

    image: str
    resources: Resources
    isolation: Isolation = Isolation.CONTAINER
    builds: bool = False
    """Whether a template is built in it: its processes are root, which is nobody on the host."""
