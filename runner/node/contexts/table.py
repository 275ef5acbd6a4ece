"""The contexts of one sandbox."""

import asyncio
import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from runner.base.masking import Masker
from runner.node.contexts.context import Context, ContextLabel
from runner.node.contexts.masked import JsonMasking
from runner.sandbox.engine.spec import CONTEXTS
from runner.sandbox.guest.living import LivingSandbox
from runner.sandbox.guest.processes import GuestProcess
from runner.words.errors import Conflict, NotFound
from runner.words.execution import Program
from runner.words.living import Language
from runner.words.sandbox import WORKSPACE

MOST = 32
"""How many a sandbox may have at once."""
KEPT = 256 * 1024
"""How many of the last bytes that a context says are kept for the node."""
# Without packages, which cost memory, and whatever the environment says to Python.
SERVE = ("/usr/bin/python3", "-E", "-s", "-S", f"{CONTEXTS}/serve.py")


class ContextTable:
    """Begins contexts in a sandbox, finds them and ends them."""

    def __init__(
        self,
        guest: LivingSandbox,
        environment: Mapping[str, str],
        masker: Callable[[], Masker],
        json: JsonMasking,
        *,
        workdir: str = WORKSPACE,
        serve: tuple[str, ...] = SERVE,
    ) -> None:
        """Take a sandbox, and the environment of everything in it; `serve` begins a context.

        A context that names no folder starts in `workdir`.

        `masker` returns what stars the secrets that are known now, and `json` does that in JSON.
        """
        self._guest = guest
        self._environment = environment
        self._masker = masker
        self._json = json.turns(guest.charge)
        self._workdir = workdir
        self._serve = serve
        self._known: dict[int, Context] = {}
        self._beginning = 0
        self._sharing = asyncio.Lock()

    def __iter__(self) -> Iterator[Context]:
        """Yield all, in order of their beginning."""
        return iter(sorted(self._known.values(), key=lambda each: each.number))

    async def share(
        self, language: Language, cwd: str | None = None
    ) -> tuple[Context, Literal["opened", "restarted"] | None]:
        """Return the language's shared context, and what had to be done for it.

        It is begun if it is not there, and restarted if its interpreter has ended. Raises what
        `open` does.
        """
        async with self._sharing:
            all_shared = (each for each in self if each.label.shared)
            found = next((each for each in all_shared if each.label.context == language), None)
            if found is not None and found.has_ended:
                self.close(found.number)
                found = None
            if found is None:
                return await self.open(language, cwd, {}, shared=True), "opened"
            if found.info().state != "ended":
                return found, None
            await found.restart()
            return found, "restarted"

    async def open(
        self, language: Language, cwd: str | None, env: Mapping[str, str], *, shared: bool = False
    ) -> Context:
        """Begin a context; return once its interpreter takes code.

        Raises Invalid if the image has no such interpreter, GuestRefused for a folder that is not
        there, and Conflict if the sandbox has as many contexts as it may.
        """
        if len(self._known) + self._beginning >= MOST:
            raise Conflict(f"this sandbox has {MOST} contexts: remove one first")
        self._beginning += 1
        try:
            folder = posixpath.join(WORKSPACE, cwd) if cwd else self._workdir
            label = ContextLabel.of(language, folder, shared=shared)
            process = await self._guest.start(
                Program(
                    argv=(*self._serve, language),
                    env={**self._environment, **env},
                    cwd=folder,
                ),
                stdin=True,
                keep_bytes=KEPT,
                label=label.text(),
            )
            context = self._add(process, label, known=False)
            try:
                await context.begin()
            except BaseException:
                self.close(process.number)
                raise
            return context
        finally:
            self._beginning -= 1

    async def adopt(self, process: GuestProcess) -> bool:
        """Take over a process if it is a context's; return whether it is one."""
        label = ContextLabel.read(process.label)
        if label is None:
            return False
        await self._add(process, label, known=True).take_over()
        return True

    def get(self, number: int) -> Context:
        """Return a context. Raises NotFound."""
        try:
            return self._known[number]
        except KeyError:
            raise NotFound(f"there is no context {number} in this sandbox") from None

    def close(self, number: int) -> None:
        """End a context. Raises NotFound."""
        self.get(number)
        del self._known[number]
        self._guest.forget(number)

    def _add(self, process: GuestProcess, label: ContextLabel, *, known: bool) -> Context:
        context = Context(
            process,
            label,
            self._masker,
            json=self._json,
            charge=self._guest.charge,
            written=self._written,
            known=known,
        )
        self._known[process.number] = context
        return context

    async def _written(self, number: int) -> int:
        for each in await self._guest.list_processes():
            if each.process == number:
                return each.output
        raise NotFound(f"there is no context {number} in this sandbox")
