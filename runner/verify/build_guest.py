"""The sandbox of a template's build, as checks see it: each program is a step, by root.

It is prepared by the program that prepares every build, and runs steps as that does: in a root of
its own that lies over the image's, without the capability to mount.
"""

import json
import shlex
from dataclasses import replace

from runner.sandbox.guest.run import OnOutput
from runner.templates.building import INSIDE, inside_program
from runner.verify.guests import GuestRun, LivingGuest, Way
from runner.words.errors import LaunchFailed
from runner.words.execution import Program
from runner.words.resources import RunBounds
from runner.words.sandbox import WORKSPACE
from runner.words.templates import ROOT, SH


class BuildGuest:
    """A sandbox in which root builds. Its programs are steps of one build."""

    def __init__(self, lives: LivingGuest) -> None:
        self._lives = lives
        self._prepared = False

    async def run(
        self, program: Program, bounds: RunBounds, way: Way, on_output: OnOutput | None = None
    ) -> GuestRun:
        """Run one program as a step."""
        if way is not Way.BUILD:
            raise ValueError(f"a build runs nothing {way}")
        if not self._prepared:
            await self._lives.write(INSIDE, inside_program())
            done = await self._step({"do": "prepare"}, program, bounds, None)
            if not done.ended.endswith(" 0"):
                raise LaunchFailed(f"the build was not prepared: {done.ended}")
            self._prepared = True
        command: dict[str, object] = {
            "do": "run",
            "command": [SH, "-ec", shlex.join(program.argv)],
            "user": ROOT,
            "cwd": WORKSPACE,
            "env": dict(program.env),
        }
        return await self._step(command, program, bounds, on_output)

    async def _step(
        self,
        command: dict[str, object],
        program: Program,
        bounds: RunBounds,
        on_output: OnOutput | None,
    ) -> GuestRun:
        argv = ("/usr/bin/python3", "-I", INSIDE, json.dumps(command))
        return await self._lives.run(replace(program, argv=argv), bounds, Way.PROCESS, on_output)
