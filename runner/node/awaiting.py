"""Waits at the start of a worker until Docker answers, as a host may start both at once.

A worker that ended instead would be started again at once, a few times: after that, systemd gives a
unit up (StartLimitBurst in systemd.unit(5)), and the host stays without its worker.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from runner.base.duties import Duties
from runner.base.health import DOCKER, Health
from runner.base.settings import Settings
from runner.sandbox.engine.docker import Engine
from runner.sandbox.launch import Launcher
from runner.words.errors import DockerUnavailable

ASK_AGAIN_S = 1.0

_log = structlog.get_logger("runner.worker")


@asynccontextmanager
async def launching(settings: Settings, *, node: str, instance: str) -> AsyncIterator[Launcher]:
    """Open the worker's launcher, once Docker answers. Raises as `Launcher.open` does.

    Until then, the log and the worker's health say why it does not. Call it while the worker holds
    its state folder, because it writes the worker's health there.
    """
    await _docker_answers(settings)
    async with Launcher.open(settings, node=node, instance=instance) as launcher:
        if launcher.declined is not None:
            _log.warning("crun_not_used", detail=launcher.declined)
        yield launcher


async def _docker_answers(settings: Settings) -> None:
    problems = {"worker": "it asks Docker, and is not ready yet"}
    async with Health(settings.run_dir, lambda: problems).told(Duties()):
        while (why := await _fault(settings)) is not None:
            if problems.get(DOCKER) != why:
                _log.warning("docker_away", detail=why, waiting=True)
            problems = {DOCKER: why}
            await asyncio.sleep(ASK_AGAIN_S)
    if DOCKER in problems:
        _log.info("docker_answers")


async def _fault(settings: Settings) -> str | None:
    try:
        async with Engine(
            settings.docker_url, timeout_s=settings.patient(settings.docker_timeout_s), threads=1
        ):
            return None
    except DockerUnavailable as error:
        return error.detail
