"""The Docker Engine API as far as sandboxes need it: no pull, no exec, no archive copy.

docker-py blocks, so calls run in threads of their own. Each call has the client's time-out, and
one that is under way when its caller is cancelled is waited for: what it did can then be undone.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, Self, TypeVar

import docker
import docker.errors
import requests
import structlog

from runner.words.errors import DockerUnavailable, ImageMissing, LaunchFailed, RunnerError

T = TypeVar("T")
Facts = dict[str, Any]
_FREEZES = 4
"""How often it is tried to freeze a container."""
_FREEZE_AGAIN_S = 0.05
_log = structlog.get_logger("runner.worker")


class Engine:
    """A connection to one Docker daemon. Every method raises DockerUnavailable when it is away."""

    def __init__(self, url: str, *, timeout_s: float, threads: int) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="docker")
        self._pool_size = threads
        self._client: docker.APIClient | None = None
        self._killing: set[str] = set()

    async def __aenter__(self) -> Self:
        try:
            await self._call(lambda client: client.ping())
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._client is not None:
            self._client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def info(self) -> Facts:
        """Return what `docker info` and `docker version` tell, as `info` and `version`."""
        return {
            "info": await self._call(lambda client: client.info()),
            "version": await self._call(lambda client: client.version()),
        }

    async def create(self, name: str, config: Mapping[str, Any]) -> str | None:
        """Create a container and return its id; None when another one has the name."""
        created: Facts | None = await self._call(
            lambda c: c.create_container_from_config(dict(config), name),  # type: ignore[no-untyped-call]
            gone=(409,),
        )
        return str(created["Id"]) if created else None

    async def start(self, container: str) -> None:
        """Start a created container."""
        await self._call(lambda client: client.start(container))

    async def kill(self, container: str) -> None:
        """SIGKILL the container; one that has ended already is fine."""
        await self._call(lambda client: client.kill(container), gone=(404, 409))

    def kill_aside(self, container: str) -> None:
        """Let one of our threads SIGKILL the container: for a caller outside the event loop.

        Does nothing while Docker has not answered to the last time.
        """

        def kill() -> None:
            try:
                self._ask(lambda client: client.kill(container), gone=(404, 409))
            except RunnerError as error:
                _log.warning("container_not_killed", container=container, error=error.detail)
            finally:
                self._killing.discard(container)

        if container not in self._killing:
            self._killing.add(container)
            self._threads.submit(kill)

    async def pause(self, container: str) -> None:
        """Freeze the container's processes; one that is paused already is fine.

        runc gives up when processes that come and go are not all frozen at once, and thaws them
        (libcontainer/cgroups/fs/freezer.go): so it is tried again.
        """
        for left in reversed(range(_FREEZES)):
            try:
                await self._call(lambda client: client.pause(container))
            except LaunchFailed:
                if (await self.state(container)).get("Paused"):
                    return
                if not left:
                    raise
                await asyncio.sleep(_FREEZE_AGAIN_S)
            else:
                return

    async def resume(self, container: str) -> None:
        """Let a paused container go on; one that is not paused is fine."""
        try:
            await self._call(lambda client: client.unpause(container))
        except LaunchFailed:
            if (await self.state(container)).get("Paused", True):
                raise

    async def remove(self, container: str) -> None:
        """Kill and remove the container; one that is gone already is fine."""
        await self._call(
            lambda client: client.remove_container(container, force=True, v=True), gone=(404, 409)
        )

    async def state(self, container: str) -> Facts:
        """Return the container's `State`, or an empty one when it is gone."""
        facts = await self.inspect(container)
        return dict(facts["State"]) if facts else {}

    async def inspect(self, container: str) -> Facts | None:
        """Return all that Docker tells of the container; None when it is gone."""
        facts = await self._call(lambda client: client.inspect_container(container), gone=(404,))
        return dict(facts) if facts else None

    async def containers(self, labels: Mapping[str, str]) -> list[Facts]:
        """Return all containers with these labels, running or not."""
        wanted = [f"{name}={value}" for name, value in labels.items()]
        found = await self._call(lambda c: c.containers(all=True, filters={"label": wanted}))
        return list(found)

    async def names(self) -> list[str]:
        """Return the names of all containers, running or not."""
        found = await self._call(lambda client: client.containers(all=True))
        return [name.removeprefix("/") for facts in found for name in facts["Names"]]

    async def make_network(self, name: str) -> None:
        """Make a bridge network. No sandbox has one: checks show what one would open."""
        await self._call(lambda client: client.create_network(name, driver="bridge"))

    async def remove_network(self, name: str) -> None:
        """Remove a network; one that is gone already is fine."""
        await self._call(lambda client: client.remove_network(name), gone=(404,))

    async def images(self, label: str) -> list[Facts]:
        """Return the images with this label."""
        return list(await self._call(lambda client: client.images(filters={"label": label})))

    async def image(self, digest: str) -> Facts:
        """Return all that Docker tells of an image. Raises ImageMissing."""
        return dict(
            await self._call(
                lambda client: client.inspect_image(digest)  # type: ignore[no-untyped-call]
            )
        )

    async def load_image(self, archive: Path) -> None:
        """Take in images as `docker save` writes them; layers that are there may be left out."""

        def send(client: docker.APIClient) -> None:
            client.timeout = None  # type: ignore[assignment]  # requests: no time-out
            with archive.open("rb") as file:
                for step in client.load_image(file):  # type: ignore[no-untyped-call]
                    if "error" in step:
                        raise LaunchFailed(f"Docker took in no image: {step['error']}")

        await self._call(send, own_client=True)

    async def remove_image(self, tag: str) -> bool:
        """Remove a name of an image, and the image with its last one; return whether it is gone.

        One that a container has stays as it is.
        """

        def remove(client: docker.APIClient) -> bool:
            with suppress(docker.errors.ImageNotFound):
                client.remove_image(tag)
            return True

        return await self._call(remove, gone=(409,)) or False

    async def import_image(
        self, tar: Path, *, repository: str, tag: str, changes: list[str]
    ) -> None:
        """Make an image of a root file system's archive (`docker import`)."""

        def send(client: docker.APIClient) -> None:
            # The request lasts as long as the archive takes to unpack.
            client.timeout = None  # type: ignore[assignment]  # requests: no time-out
            client.import_image_from_file(str(tar), repository=repository, tag=tag, changes=changes)

        await self._call(send, own_client=True)

    async def build(self, context: IO[bytes], *, tag: str) -> None:
        """Build an image from a context archive, without a network."""

        def send(client: docker.APIClient) -> None:
            client.timeout = None  # type: ignore[assignment]  # requests: no time-out
            steps = client.build(
                fileobj=context,
                custom_context=True,
                tag=tag,
                network_mode="none",
                rm=True,
                forcerm=True,
                decode=True,
            )
            for step in steps:
                if "error" in step:
                    raise LaunchFailed(f"image {tag}: {step['error']}")

        await self._call(send, own_client=True)

    async def _call(
        self,
        request: Callable[[docker.APIClient], T],
        *,
        gone: tuple[int, ...] = (),
        own_client: bool = False,
    ) -> T:
        """Run one request; an answer listed in `gone` counts as None."""
        future = asyncio.get_running_loop().run_in_executor(
            self._threads, partial(self._ask, request, gone=gone, own_client=own_client)
        )
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            raise

    def _ask(
        self,
        request: Callable[[docker.APIClient], T],
        *,
        gone: tuple[int, ...],
        own_client: bool = False,
    ) -> T:
        client: docker.APIClient | None = None
        try:
            client = self._connect() if own_client else self._shared()
            return request(client)
        except docker.errors.ImageNotFound as error:
            raise ImageMissing(f"image not on this host: {error.explanation}") from error
        except docker.errors.APIError as error:
            if error.status_code in gone:
                return None  # type: ignore[return-value]  # only where the caller expects it
            raise LaunchFailed(f"Docker refused: {error.explanation}") from error
        except (requests.RequestException, docker.errors.DockerException, OSError) as error:
            raise DockerUnavailable(f"Docker does not answer at {self._url}: {error}") from error
        finally:
            if own_client and client is not None:
                client.close()

    def _connect(self) -> docker.APIClient:
        path = self._url.removeprefix("unix://")
        if path != self._url and not Path(path).is_socket():
            raise FileNotFoundError(f"{path} is not a socket")
        client = docker.APIClient(
            base_url=self._url,
            version="auto",
            timeout=self._timeout_s,  # type: ignore[arg-type]  # requests takes fractions
            max_pool_size=self._pool_size,
        )
        # The daemon is where the operator says, not behind a proxy that the environment names; to
        # look for one takes a quarter of each call.
        client.trust_env = False
        return client

    def _shared(self) -> docker.APIClient:
        if self._client is None:
            self._client = self._connect()
        return self._client
