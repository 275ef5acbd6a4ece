"""Starts processes in one sandbox, and keeps and records each."""

import posixpath
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from runner.door.grants import DoorGrant
from runner.node.residents.journal import Journal
from runner.node.residents.processes import ProcessLabel, ProcessTable, TrackedProcess
from runner.sandbox.guest.living import LivingSandbox
from runner.sandbox.guest.processes import Attached, GuestProcess
from runner.words.execution import Program
from runner.words.living import Launch
from runner.words.sandbox import WORKSPACE


class Starts:
    """Starts processes. Each method raises GuestRefused if the program cannot be executed."""

    def __init__(
        self,
        guest: LivingSandbox,
        processes: ProcessTable,
        journal: Journal,
        environment: Mapping[str, str],
        workdir: str,
    ) -> None:
        """Take parts.

        Every process gets this environment, overridden by its own, and starts in this folder
        unless it names another one.
        """
        self._guest = guest
        self._processes = processes
        self._journal = journal
        self._environment = environment
        self._workdir = workdir

    async def alone(self, grant: DoorGrant, launch: Launch) -> TrackedProcess:
        """Start a process."""
        label = ProcessLabel.of(launch)
        guest = await self._guest.start(
            self._program(launch),
            stdin=launch.stdin,
            terminal=launch.terminal,
            keep_bytes=launch.keep_bytes,
            label=label.text(),
        )
        return self._tracked(grant, launch, guest, label)

    @asynccontextmanager
    async def attached(
        self, grant: DoorGrant, launch: Launch
    ) -> AsyncIterator[tuple[TrackedProcess, Attached]]:
        """Start a process, and get its output for the context: one exchange with the sandbox."""
        label = ProcessLabel.of(launch)
        async with self._guest.start_attached(
            self._program(launch),
            stdin=launch.stdin,
            terminal=launch.terminal,
            keep_bytes=launch.keep_bytes,
            label=label.text(),
        ) as (guest, output):
            yield self._tracked(grant, launch, guest, label), output

    def _program(self, launch: Launch) -> Program:
        return Program(
            argv=launch.argv,
            env={**self._environment, **launch.env},
            cwd=posixpath.join(WORKSPACE, launch.cwd) if launch.cwd else self._workdir,
        )

    def _tracked(
        self, grant: DoorGrant, launch: Launch, guest: GuestProcess, label: ProcessLabel
    ) -> TrackedProcess:
        process = self._processes.add(guest, label)
        self._journal.started(grant, process.number, launch.argv[0], len(launch.argv) - 1)
        return process
