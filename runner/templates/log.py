"""The log of a build, stored some at a time, so that clients can follow it."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from runner.store import templates
from runner.store.db import Database
from runner.words.errors import RunnerError

FLUSH_S = 0.5
MOST = 2**20
"""The most characters of one build's log; the rest is left out."""
_log = structlog.get_logger("runner.api")
_CUT = "\n[the log is cut here: it is longer than a build's log may be]\n"


@dataclass(slots=True)
class BuildLog:
    """The log of one build."""

    database: Database
    tenant: UUID
    template: UUID
    _seq: int = 0
    _left: int = MOST
    _waiting: list[str] = field(default_factory=list)
    _storing: str = ""
    """The content of entry number `_seq`, until it is stored."""

    def say(self, text: str) -> None:
        """Add to the log."""
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        if self._left <= 0 or not text:
            return
        self._waiting.append(text[: self._left])
        self._left -= len(text)
        if self._left <= 0:
            self._waiting.append(_CUT)

    async def store(self) -> None:
        """Store what was added. You may repeat this if it fails."""
        if not self._storing and self._waiting:
            self._storing, self._waiting = "".join(self._waiting), []
            self._seq += 1
        if self._storing:
            async with self.database.tenant(self.tenant) as tx:
                templates.say_later(tx, self.template, self._seq, self._storing)
            self._storing = ""

    async def store_until(self, ended: asyncio.Event) -> None:
        """Store what is added, again and again."""
        while not ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await ended.wait()
            try:
                await self.store()
            except RunnerError as error:
                # It is still there, and tried again.
                _log.warning("build_log_waits", template=str(self.template), error=error.detail)
