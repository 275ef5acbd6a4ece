"""The seam between a recipe and where its sandboxes come from: claim one, use it, dispose of it."""

import asyncio
from typing import Protocol

import structlog

from runner.node.traffic import PATIENCE_S, Traffic
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.launch import Launcher, SandboxOrder
from runner.words.errors import RunnerError
from runner.words.execution import Claim, ExecutionRequest

REMOVED_AT_ONCE = 2
"""Docker removes no faster than this, and starts what is waited for beside it."""


class Sandboxes(Protocol):
    """Where the recipe gets its sandboxes."""

    async def claim(self, claim: Claim, request: ExecutionRequest) -> Sandbox:
        """Return a started sandbox that no other execution has or will use."""

    async def dispose(self, sandbox: Sandbox, *, at_once: bool = False) -> None:
        """Take back a sandbox, whatever state it is in; when there is time for it, or at once."""


class FreshSandboxes:
    """A new container for each execution, destroyed after it."""

    def __init__(self, launcher: Launcher, traffic: Traffic | None = None) -> None:
        self._launcher = launcher
        self._traffic = traffic or Traffic()
        self._turns = asyncio.Semaphore(REMOVED_AT_ONCE)
        self._turns_to_wait = asyncio.Semaphore(REMOVED_AT_ONCE)
        self._log = structlog.get_logger("runner.worker")

    async def claim(self, claim: Claim, request: ExecutionRequest) -> Sandbox:
        """Launch a container for this execution alone."""
        return await self._launcher.launch(
            SandboxOrder(
                request.sandbox,
                tenant=str(claim.tenant_id),
                execution=str(claim.execution_id),
                attempt=str(claim.attempt),
            )
        )

    async def dispose(self, sandbox: Sandbox, *, at_once: bool = False) -> None:
        """Destroy the container, or leave it to a sweep when Docker does not answer."""
        if at_once:
            await self._destroy(sandbox)
            return
        until = asyncio.get_running_loop().time() + PATIENCE_S
        # They wait one behind the other, so that the next execution holds up those behind.
        async with self._turns_to_wait:
            await self._traffic.quiet(until)
            await self._destroy(sandbox)

    async def _destroy(self, sandbox: Sandbox) -> None:
        try:
            async with self._turns:
                await sandbox.destroy()
        except RunnerError as error:
            # No longer in use: the next sweep for strays takes it.
            self._launcher.live.discard(sandbox.id)
            self._log.warning("sandbox_left_to_sweep", sandbox=sandbox.id, error=error.detail)
