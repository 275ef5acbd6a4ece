"""Runs programs in the sandbox of one package, in that package's own environment.

A line of JSON is a program; the answer is a line with what it put out, or with what went wrong.
Another line is written when everything is cleaned up, so that this is not measured.
Usage: `python peer_driver.py PACKAGE GIVEN`, where GIVEN is what the package needs, as JSON.
"""

import asyncio
import importlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

Given = dict[str, str]
Drive = Callable[[Given, AsyncExitStack, list[str]], Awaitable[str]]
READABLE = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc"]


async def llm_sandbox(given: Given, stack: AsyncExitStack, program: list[str]) -> str:
    """Its Docker session, without a network; the image has its interpreter as `python3` alone."""
    package = importlib.import_module("llm_sandbox")
    client = importlib.import_module("docker").DockerClient(given["docker"])
    stack.callback(client.close)
    session = stack.enter_context(
        package.SandboxSession(
            client=client, image=given["image"], lang="python", workdir="/tmp",  # noqa: S108 - the container's own
            skip_environment_setup=True, keep_template=True,
            runtime_configs={"network_mode": "none", "entrypoint": "", "command": "sleep 60"},
        )
    )  # fmt: skip
    # PID 1 hears no SIGTERM: stopping it would take ten seconds.
    stack.callback(session.container.kill)
    return str(session.execute_command(shlex.join(program)).stdout).replace("\r\n", "\n")


async def sandlock(given: Given, stack: AsyncExitStack, program: list[str]) -> str:
    """Its sandbox on the host's files, readable where Python needs it."""
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
    "sandlock": sandlock,
    "microsandbox": microsandbox,
    "boxlite": boxlite,
}


async def main() -> None:
    """Answer until there is no more."""
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
