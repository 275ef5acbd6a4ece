"""The connection to the Docker daemon: every call in a thread, every failure one of ours."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from runner.errors import DockerUnavailable, ImageMissing, LaunchFailed
from runner.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

SERVER_ERROR = 500


class Docker:
    """Docker's API. Safe to use from many tasks: the HTTP session keeps a pool of connections."""

    def __init__(self, client: docker.APIClient) -> None:
        self.client = client

    async def call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a method of `client` in a thread.

        Raises ImageMissing, LaunchFailed for what the daemon refuses, and DockerUnavailable when
        it does not answer in time.
        """
        try:
            return await asyncio.to_thread(method, *args, **kwargs)
        except ImageNotFound as error:
            raise ImageMissing(f"Docker has no such image: {error.explanation}") from error
        except APIError as error:
            raise LaunchFailed(f"Docker refused: {error.explanation}") from error
        except (requests.RequestException, DockerException, OSError) as error:
            raise DockerUnavailable(f"Docker does not answer: {type(error).__name__}") from error

    async def remove(self, container_id: str) -> None:
        """Kill and remove a container; one that is gone, or being removed, is fine."""
        try:
            await asyncio.to_thread(self.client.remove_container, container_id, force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if "is already in progress" not in str(error.explanation):
                raise DockerUnavailable(f"Docker kept a container: {error.explanation}") from error
        except (requests.RequestException, DockerException, OSError) as error:
            raise DockerUnavailable(f"Docker does not answer: {type(error).__name__}") from error

    async def kill(self, container_id: str) -> None:
        """Send SIGKILL to a container; one that does not run is fine."""
        try:
            await asyncio.to_thread(self.client.kill, container_id, "SIGKILL")
        except APIError as error:
            if error.status_code is not None and error.status_code >= SERVER_ERROR:
                raise DockerUnavailable(f"Docker kept a container: {error.explanation}") from error
        except (requests.RequestException, DockerException, OSError) as error:
            raise DockerUnavailable(f"Docker does not answer: {type(error).__name__}") from error

    async def state(self, container_id: str) -> dict[str, Any]:
        """Return the container's state as Docker knows it."""
        inspected = await self.call(self.client.inspect_container, container_id)
        return dict(inspected["State"])


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Docker]:
    """Connect to the daemon of the settings. Raises DockerUnavailable saying what to do."""

    def connect() -> docker.APIClient:
        return docker.APIClient(
            base_url=settings.docker_url,
            version="auto",
            timeout=settings.docker_timeout_s,
            num_pools=settings.slots + 4,
            max_pool_size=settings.slots + 4,
        )

    try:
        client = await asyncio.to_thread(connect)
    except (requests.RequestException, DockerException, OSError) as error:
        raise DockerUnavailable(
            f"no Docker daemon answers at {settings.docker_url}: start one, or set RUNNER_DOCKER_URL"
        ) from error
    try:
        yield Docker(client)
    finally:
        client.close()


async def describe(settings: Settings) -> dict[str, Any] | None:
    """Return `docker info` and `docker version` together, or None when no daemon answers."""
    try:
        async with opened(settings) as daemon:
            info = await daemon.call(daemon.client.info)
            version = await daemon.call(daemon.client.version)
    except DockerUnavailable:
        return None
    return {"info": info, "version": version}
