"""Requests that are under way, each of which ends with the right that it came with.

Nobody has to announce the end of a right: all running requests are checked together, a few times a
second, in one statement. So an expiry ends a request just as a revocation does.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import ClassVar, Generic, Self, TypeVar

import structlog

from runner.base.duties import Duties
from runner.store.db import Database
from runner.store.transaction import Transaction
from runner.words.errors import RightEnded, RightUnconfirmed

LOOK_S = 0.25
"""Pause between two checks. Two in a row must find a right ended, so it takes well below a
second."""
UNCONFIRMED_S = 10.0
"""How long a request continues while PostgreSQL does not say whether its right still holds."""
OVER = (
    "your key, session or token ended, or lost this permission, while the request was under way: "
    "some of it may have been done"
)
NOT_CONFIRMED = (
    "PostgreSQL does not say whether your key, session or token still stands, so the request was "
    "ended: some of it may have been done; look before you try again"
)


@dataclass(eq=False, slots=True, kw_only=True)
class UnderWay:
    """A running request, and the task that serves it.

    `confirmed` is when its right was last known to hold, on the monotonic clock; at first, when the
    request was accepted.
    """

    task: asyncio.Task[object] | None = field(default_factory=asyncio.current_task)
    confirmed: float = field(default_factory=time.monotonic)
    doubted: bool = False
    over: RightEnded | RightUnconfirmed | None = None


T = TypeVar("T", bound=UnderWay)


class Holding(ABC, Generic[T]):
    """The running requests of this process whose callers are of one kind."""

    LOOKING: ClassVar[str]
    """The name of the duty that checks them."""

    def __init__(
        self, database: Database, *, idle: timedelta, duties: Duties | None = None
    ) -> None:
        self._database = database
        self._idle = idle
        self._held: set[T] = set()
        self._duties = duties or Duties()
        self._under_way = AsyncExitStack()
        self._log = structlog.get_logger("runner.auth")

    @property
    def confirming(self) -> bool:
        """Whether PostgreSQL says which rights hold."""
        return self.LOOKING not in self._duties.failing

    async def __aenter__(self) -> Self:
        looking = self._duties.doing(self.LOOKING, self._look_or_doubt, every_s=LOOK_S)
        await self._under_way.enter_async_context(looking)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._under_way.aclose()

    @contextmanager
    def _holding(self, held: T) -> Iterator[T]:
        """Track a request inside the context.

        Cancels the task and raises RightEnded within a second after its right ends, or
        RightUnconfirmed if nobody can tell for `UNCONFIRMED_S` whether it holds.
        """
        self._held.add(held)
        try:
            yield held
        except asyncio.CancelledError:
            # Somebody else has cancelled the task meanwhile: obey that.
            if held.over is None or held.task is None or held.task.uncancel():
                raise
            raise held.over from None
        finally:
            self._held.discard(held)

    async def _look_or_doubt(self) -> None:
        try:
            await self.look()
        except Exception:
            self._doubt()
            raise

    async def look(self) -> None:
        """End the requests whose right this check and the one before both found ended.

        A request that ended its own right, as a logout does, has the time between them to answer.
        """
        held, began = list(self._held), time.monotonic()
        if held:
            async with self._database.statements() as tx:
                standing = await self._still_standing(tx, held)
            for each in held:
                stands = each in standing
                if not stands and each.doubted:
                    self._end(each, RightEnded(OVER))
                each.doubted = not stands
                each.confirmed = began

    @abstractmethod
    async def _still_standing(self, tx: Transaction, held: Collection[T]) -> Collection[T]:
        """Return the requests that the API would accept again."""

    def _doubt(self) -> None:
        """End the requests whose rights have been unconfirmed for too long.

        Requests that were accepted since then stay: PostgreSQL was asked when they came.
        """
        before = time.monotonic() - UNCONFIRMED_S
        unconfirmed = [each for each in self._held if each.confirmed <= before]
        if unconfirmed:
            self._log.error("rights_unconfirmed", requests=len(unconfirmed))
        for each in unconfirmed:
            self._end(each, RightUnconfirmed(NOT_CONFIRMED))

    def _end(self, held: T, why: RightEnded | RightUnconfirmed) -> None:
        if held in self._held and held.over is None and held.task is not None:
            held.over = why
            held.task.cancel()
