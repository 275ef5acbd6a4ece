"""The interface by which a run gets a sandbox: claim one, use it, dispose of it."""

import asyncio
import json
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import structlog

from runner.node.traffic import PATIENCE_S, Traffic
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.launch import Launcher, SandboxOrder
from runner.words.errors import RunnerError
from runner.words.execution import Claim, ExecutionRequest
from runner.words.sandbox import SandboxSpec

REMOVED_AT_ONCE = 2
"""How many removals run at once: Docker is no faster with more, and still starts others."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a sandbox, and what an execution must have in common with the one before."""

    tenant: UUID
    spec: SandboxSpec
    egress: str

    @classmethod
    def of(cls, claim: Claim, request: ExecutionRequest) -> "Owner":
        """Return who may use the sandbox of this execution afterwards."""
        rules = json.dumps([dict(rule) for rule in request.egress], sort_keys=True)
        return cls(claim.tenant_id, request.sandbox, rules)


@dataclass(frozen=True, slots=True)
class Need:
    """A sandbox that is needed now. `owner` may reuse it afterwards; None means nobody may."""

    order: SandboxOrder
    owner: Owner | None = None
    checked: bool = True
    """Whether it must have answered. Otherwise it may have died while it waited."""

    @classmethod
    def of(cls, claim: Claim, request: ExecutionRequest) -> "Need":
        """Return what an execution needs."""
        order = SandboxOrder(
            request.sandbox,
            tenant=str(claim.tenant_id),
            execution=str(claim.execution_id),
            attempt=str(claim.attempt),
        )
        return cls(order, Owner.of(claim, request) if request.reuse else None)


class Sandboxes(Protocol):
    """The source of sandboxes for runs."""

    async def claim(self, wanted: Need) -> Sandbox:
        """Return a started sandbox that nobody else has or will use."""

    async def dispose(self, sandbox: Sandbox, *, at_once: bool = False) -> None:
        """Take back a sandbox in any state; when there is time for it, or `at_once`."""


class FreshSandboxes:
    """A new container for each use, destroyed after it."""

    def __init__(self, launcher: Launcher, traffic: Traffic | None = None) -> None:
        self._launcher = launcher
        self._traffic = traffic or Traffic()
        self._turns = asyncio.Semaphore(REMOVED_AT_ONCE)
        self._turns_to_wait = asyncio.Semaphore(REMOVED_AT_ONCE)
        self._log = structlog.get_logger("runner.worker")

    async def claim(self, wanted: Need) -> Sandbox:
        """Launch a container for this use alone."""
        return await self._launcher.launch(wanted.order)

    async def dispose(self, sandbox: Sandbox, *, at_once: bool = False) -> None:
        """Destroy the container, or leave it to a sweep when Docker does not answer."""
        if at_once:
            await self._destroy(sandbox)
            return
        until = asyncio.get_running_loop().time() + PATIENCE_S
        # Removals wait in a queue, so that a new execution takes precedence over them.
        async with self._turns_to_wait:
            await self._traffic.quiet(until)
            await self._destroy(sandbox)

    async def _destroy(self, sandbox: Sandbox) -> None:
        try:
            async with self._turns:
                await sandbox.destroy()
        except RunnerError as error:
            # It is no longer in use, so the next sweep for strays removes it.
            self._launcher.live.discard(sandbox.id)
            self._log.warning("sandbox_left_to_sweep", sandbox=sandbox.id, error=error.detail)
