"""Announcements that an execution changed: hints over Redis pub/sub.

A listener reads PostgreSQL when a hint arrives, and also now and then without one, so a lost hint
only costs time. The channel carries an id and the kind of news, for listeners that want one kind
only. A forged announcement only makes somebody look once more.

A notice of an end may go before its announcement. `runner.executions` seals and opens it: nobody
believes it as it comes.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from enum import Enum
from types import TracebackType
from typing import Self
from uuid import UUID

import structlog
from pydantic import SecretStr
from redis.exceptions import RedisError

from runner.base.duties import Duties
from runner.queue.connections import connect_async
from runner.words.errors import QueueUnavailable

CHANNEL = "runner:changed"
GATHERED_S = 0.02
"""How long news that nobody waits for may wait for other news: each message wakes every process."""
MOST_NOTICE = 8 * 1024
"""Most bytes of a notice of an end: every process that listens receives each of them."""
_ID = len(UUID(int=0).bytes)
_NOTICE = b"t"
"""Follows the id in a message with a notice."""


class News(Enum):
    """An announcement about an execution."""

    CHANGED = b""
    CANCELLING = b"c"
    ENDED = b"e"


_KINDS = frozenset(each.value for each in News)


class Watch:
    """One listener: it remembers an announcement until it waits for one."""

    def __init__(self, wanted: frozenset[News]) -> None:
        self._changed = asyncio.Event()
        self._wanted = wanted
        self.notice: bytes | None = None
        """The last notice of the end. Anybody who reaches Redis may have written it."""

    def notify(self, news: News) -> None:
        """Remember that something changed, if the listener wants this kind of news."""
        if news in self._wanted:
            self._changed.set()

    def wake(self) -> None:
        """Let the listener look, because announcements may have been lost."""
        self._changed.set()

    async def wait(self, timeout_s: float) -> bool:
        """Return True at the next announcement, False after `timeout_s` seconds without one."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True


class Changes:
    """One subscription for the whole process, which serves the listeners of all executions."""

    def __init__(self, redis_url: SecretStr, duties: Duties | None = None) -> None:
        self._publisher = connect_async(redis_url)
        self._subscriber = connect_async(redis_url, listens=True)
        self._watches: defaultdict[UUID, set[Watch]] = defaultdict(set)
        self._unsaid: list[bytes] = []
        self._said = asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None
        self._publishing = asyncio.Lock()
        self._duties = duties or Duties()
        self._under_way = AsyncExitStack()
        self._log = structlog.get_logger("runner.queue")

    async def __aenter__(self) -> Self:
        for name, work in (("announcing changes", self._speak), ("hearing changes", self._listen)):
            await self._under_way.enter_async_context(self._duties.doing(name, work, lasting=True))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._publish()
        await self._under_way.aclose()
        await self._publisher.aclose()
        await self._subscriber.aclose()

    def announce(
        self, execution_id: UUID, news: News = News.CHANGED, notice: bytes | None = None
    ) -> None:
        """Tell listeners in every process, soon; the caller does not wait for Redis.

        An end and a cancellation are told at once, and take along what was gathered before. A
        `notice` of the end goes ahead of it. If Redis does not answer, that is logged: listeners
        look from time to time anyway.
        """
        if notice is not None:
            self._unsaid.append(execution_id.bytes + _NOTICE + notice)
        self._unsaid.append(execution_id.bytes + news.value)
        if news is not News.CHANGED:
            self._said.set()
        elif self._soon is None:
            loop = asyncio.get_running_loop()
            self._soon = loop.call_later(GATHERED_S, self._said.set)

    @contextmanager
    def watch(self, execution_id: UUID, *wanted: News) -> Iterator[Watch]:
        """Listen for news of one execution inside the context: of these kinds, or of all."""
        watch = Watch(frozenset(wanted or News))
        self._watches[execution_id].add(watch)
        try:
            yield watch
        finally:
            self._watches[execution_id].discard(watch)
            if not self._watches[execution_id]:
                del self._watches[execution_id]

    async def _speak(self) -> None:
        await self._said.wait()
        await self._publish()

    async def _publish(self) -> None:
        """Publish the pending announcements, in order and in one round trip."""
        async with self._publishing:
            self._said.clear()
            if self._soon is not None:
                self._soon.cancel()
                self._soon = None
            unsaid, self._unsaid = self._unsaid, []
            if not unsaid:
                return
            try:
                async with self._publisher.pipeline(transaction=False) as pipeline:
                    for each in unsaid:
                        pipeline.publish(CHANNEL, each)
                    await pipeline.execute()
            except RedisError as error:
                lost = list(dict.fromkeys(str(UUID(bytes=each[:_ID])) for each in unsaid))
                self._log.warning("announcements_lost", executions=lost, error=repr(error))

    async def _listen(self) -> None:
        try:
            async with self._subscriber.pubsub(ignore_subscribe_messages=True) as subscription:
                await subscription.subscribe(CHANNEL)
                self._wake_all()
                while (answer := await subscription.parse_response(block=True)) is not None:
                    message = await subscription.handle_message(answer)
                    if message is not None:
                        self._wake(message["data"])
        except RedisError as error:
            raise QueueUnavailable(f"the subscription was lost: {type(error).__name__}") from error
        # redis-py takes ETIMEDOUT, by which the kernel tells of a lost peer, for a time-out of its
        # own, and returns nothing. Its `listen` then asks again, and gets the same, for ever: it
        # never lets the loop do anything else.
        raise QueueUnavailable("the subscription was lost: Redis does not answer")

    def _wake(self, data: object) -> None:
        if not isinstance(data, bytes) or len(data) < _ID:
            return
        watches, said = self._watches.get(UUID(bytes=data[:_ID]), ()), data[_ID:]
        if said in _KINDS:
            for watch in watches:
                watch.notify(News(said))
        elif said.startswith(_NOTICE) and len(said) <= len(_NOTICE) + MOST_NOTICE:
            for watch in watches:
                watch.notice = said[len(_NOTICE) :]

    def _wake_all(self) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()
