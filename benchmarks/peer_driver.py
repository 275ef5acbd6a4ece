"""Runs programs in one way, in the sandbox of one package and in that package's environment.

Each input line is a program in JSON; the answer is a line with its output, or with the error. One
more line follows when everything is cleaned up, so that cleaning is not measured. Usage: `python
peer_driver.py WAY GIVEN`, where GIVEN is JSON that the way needs.
"""

import asyncio
import atexit
import importlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import cache
from typing import Any

Given = dict[str, str]
Drive = Callable[[Given, AsyncExitStack, list[str]], Awaitable[str]]
WORKDIR = "/tmp"  # noqa: S108 - the container's own, where its user may write
READABLE = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc"]
ALONE = {"network_mode": "none", "entrypoint": "", "command": "sleep 3600"}
"""How llm-sandbox shall start a container: no network, and no program of the image."""


async def llm_sandbox(given: Given, stack: AsyncExitStack, program: list[str]) -> str:
    """Its Docker session without a network; the image has its interpreter only as `python3`."""
    package = importlib.import_module("llm_sandbox")
    client = importlib.import_module("docker").DockerClient(given["docker"])
    stack.callback(client.close)
    session = stack.enter_context(
        package.SandboxSession(
            client=client, image=given["image"], lang="python", workdir=WORKDIR,
            skip_environment_setup=True, keep_template=True, runtime_configs=ALONE,
        )
    )  # fmt: skip
    # PID 1 ignores SIGTERM, so stopping it would take ten seconds.
    stack.callback(session.container.kill)
    return _said(session, program)


@cache
def _pool(docker: str, image: str) -> Any:
    """Return its pool, opened with two containers that are used again and again."""
    pool = importlib.import_module("llm_sandbox.pool")
    client = importlib.import_module("docker").DockerClient(docker)
    opened = pool.create_pool_manager(
        client=client, config=pool.PoolConfig(min_pool_size=2, max_pool_size=2), lang="python",
        image=image, workdir=WORKDIR, skip_environment_setup=True, keep_template=True,
        # PID 1 ignores SIGTERM, so stopping it would take ten seconds.
        runtime_configs={**ALONE, "stop_signal": "SIGKILL"},
    )  # fmt: skip
    atexit.register(client.close)
    atexit.register(opened.close)
    return opened


async def llm_sandbox_pool(given: Given, stack: AsyncExitStack, program: list[str]) -> str:
    """Its pool of Docker containers, which serve one program after the other as they are."""
    pool = importlib.import_module("llm_sandbox.pool")
    session = pool.PooledSandboxSession(_pool(given["docker"], given["image"]), workdir=WORKDIR)
    return _said(stack.enter_context(session), program)


async def llm_sandbox_bubblewrap(given: Given, stack: AsyncExitStack, program: list[str]) -> str:
    """Its back end without a daemon, on the host's files."""
    del given
    package = importlib.import_module("llm_sandbox")
    session = stack.enter_context(
        package.SandboxSession(
            backend=package.SandboxBackend.BUBBLEWRAP, lang="python", skip_environment_setup=True
        )
    )
    return _said(session, program)


def _said(session: Any, program: list[str]) -> str:
    ran = session.execute_command(shlex.join(program))
    return str(ran.stdout).replace("\r\n", "\n")


async def sandlock(given: Given, stack: AsyncExitStack, program: list[str]) -> str:
    """Its sandbox on the host's files, which are readable where Python needs them."""
    del given, stack
    package = importlib.import_module("sandlock")
    command = ["/usr/bin/python3", *program[1:]]
    ran = await asyncio.to_thread(package.Sandbox(fs_readable=READABLE).run, command, 30)
    if not ran.success:
        raise RuntimeError(f"{ran.error} {ran.stderr!r}")
    return bytes(ran.stdout).decode()


async def microsandbox(given: Given, stack: AsyncExitStack, program: list[str]) -> str:
    """Start a virtual machine on our image's files."""
    package = importlib.import_module("microsandbox")
    box = await stack.enter_async_context(
        await package.Sandbox.create(
            f"benchmark-{os.urandom(4).hex()}", image=package.Image.bind(given["root"]),
            memory=256, cpus=1, ephemeral=True, pull_policy=package.PullPolicy.NEVER,
        )
    )  # fmt: skip
    return str((await box.exec("/usr/bin/python3", program[1:])).stdout_text)


async def boxlite(given: Given, stack: AsyncExitStack, program: list[str]) -> str:
    """Start a virtual machine of our image."""
    package = importlib.import_module("boxlite")
    runtime = package.Boxlite(package.Options(home_dir=given["home"]))
    box = await stack.enter_async_context(
        package.SimpleBox(rootfs_path=given["layout"], runtime=runtime, memory_mib=256, cpus=1)
    )
    return str((await box.exec(*program)).stdout)


DRIVES: dict[str, Drive] = {
    "llm-sandbox": llm_sandbox,
    "llm-sandbox, its pool": llm_sandbox_pool,
    "llm-sandbox on bubblewrap": llm_sandbox_bubblewrap,
    "sandlock": sandlock,
    "microsandbox": microsandbox,
    "boxlite": boxlite,
}


async def main() -> None:
    """Answer until there is no more input."""
    logging.disable(logging.CRITICAL)
    drive, given = DRIVES[sys.argv[1]], json.loads(sys.argv[2])
    # Packages print, too.
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        while program := await asyncio.to_thread(sys.stdin.readline):
            try:
                async with AsyncExitStack() as stack:
                    said: dict[str, Any] = {
                        "stdout": await drive(given, stack, json.loads(program))
                    }
                    answers.write(json.dumps(said) + "\n")
                answers.write("{}\n")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
