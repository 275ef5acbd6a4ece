"""Makes containers: which image, which isolation, which user, which configuration."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.base.seccomp import SeccompProfile
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.images import BuiltImage, Images
from runner.sandbox.engine.spec import (
    LIMITLESS,
    Host,
    Placement,
    container_config,
)
from runner.sandbox.engine.users import Users, container_name, taken_ids, write_accounts
from runner.words.errors import IsolationMissing, LaunchFailed
from runner.words.resources import Resources
from runner.words.sandbox import RUNSC, SHARE_THE_KERNEL, Isolation, SandboxSpec

_GOFER_UID = 0
"""gVisor's gofer, root on the host, opens the host's sockets for its sandbox; nobody inside can."""

Configure = Callable[[Placement, Resources, SeccompProfile, Host], dict[str, Any]]
"""Makes a container's configuration; a security check passes one that lacks a control."""


@dataclass(frozen=True, slots=True)
class Made:
    """A container that was created, and does not run yet."""

    id: str
    image: str
    """The name of its recipe."""
    config: Mapping[str, Any]
    peer: int
    """The user that must be seen at the other end of the sandbox's socket."""


class Maker:
    """Makes the containers of one Docker daemon."""

    def __init__(
        self,
        engine: Engine,
        images: Images,
        *,
        profile: SeccompProfile,
        host: Host,
        users: Users,
        configure: Configure = container_config,
    ) -> None:
        self.images = images
        self.profile = profile
        self.host = host
        self.configure = configure
        self._engine = engine
        self._users = users

    async def image_of(self, spec: SandboxSpec) -> BuiltImage:
        """Return the image that the sandbox is to have.

        Raises ImageMissing; IsolationMissing for an isolation that this Docker cannot give, which
        is asked each time, as its runtimes may change.
        """
        if spec.isolation is not Isolation.CONTAINER:
            await self._require(self.host.runtime_of(spec.isolation), spec.isolation)
        return await self.images.find(spec.image)

    async def _require(self, runtime: str, isolation: Isolation) -> None:
        runtimes = (await self._engine.info())["info"].get("Runtimes") or {}
        if runtime not in runtimes:
            raise IsolationMissing(
                f"isolation {isolation} needs Docker's runtime {runtime}, "
                "which this host has not; `runner doctor` tells how to install it"
            )
        if LIMITLESS in (runtimes[runtime].get("runtimeArgs") or ()):
            raise IsolationMissing(
                f"Docker's runtime {runtime} is told {LIMITLESS}: no limit of memory, "
                "processes or CPU would hold; `runner doctor` tells how to register it"
            )

    async def make(
        self, spec: SandboxSpec, image: BuiltImage, folder: Path, labels: Mapping[str, str]
    ) -> Made:
        """Create a container as a user that no other sandbox is.

        Raises LaunchFailed when every user id is taken.
        """
        taken: set[int] = set()
        while (uid := self._users.next(taken)) is not None:
            write_accounts(folder, uid, image.account)
            self.host.masks.write(folder)
            placement = Placement(
                image.digest, folder, uid, labels, spec.isolation, image.account, spec.builds
            )
            config = self.configure(placement, spec.resources, self.profile, self.host)
            container_id = await self._engine.create(container_name(uid), config)
            if container_id is not None:
                peer = peer_of(config, self.host.runtime_of(spec.isolation))
                return Made(container_id, spec.image, config, peer)
            taken |= taken_ids(await self._engine.names()) | {uid}
        raise LaunchFailed(
            "sandboxes hold every user id of RUNNER_SANDBOX_UIDS; give it a longer range"
        )


def peer_of(config: Mapping[str, Any], runtime: str) -> int:
    """Return the user that must be seen at the other end of such a container's socket."""
    uid = str(config["User"]).partition(":")[0]
    return _GOFER_UID if runtime == RUNSC else int(uid)


def process_of(facts: Mapping[str, Any], runtime: str) -> int | None:
    """Return the process that must be seen at the other end of a running container's socket.

    None where another one connects in its stead, as with gVisor, and where this process does not
    see processes by the numbers that Docker tells of them.
    """
    if runtime not in SHARE_THE_KERNEL:
        return None
    pid = int(facts["State"]["Pid"])
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return None
    return pid if facts["Id"] in groups else None
