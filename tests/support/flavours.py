"""The SDK's two halves for the same tests: the asynchronous one is made to look synchronous.

A `Blocked` stands for something asynchronous. Whatever one would await happens in an event loop of
its own thread, and its caller waits for it: calls, context managers, and iteration.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal

import agent_runner
from agent_runner import AsyncClient, AsyncSandbox, Client, Sandbox

T = TypeVar("T")
FLAVOURS = ("sync", "async")
_END = object()


class Connect(Protocol):
    """Makes a client of one of the halves, with the types of the synchronous one."""

    def __call__(self, url: str, api_key: str, *, retry_for_s: float = ...) -> Client:
        """Make a client."""


class Blocked:
    """Something asynchronous, as if it were synchronous."""

    def __init__(self, portal: BlockingPortal, thing: Any) -> None:
        self.portal = portal
        self.thing = thing

    def __repr__(self) -> str:
        return f"Blocked({self.thing!r})"

    def __getattr__(self, name: str) -> Any:
        asynchronous = "aclose" if name == "close" and hasattr(self.thing, "aclose") else name
        return blocked(self.portal, getattr(self.thing, asynchronous))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it, and wait for what it returns."""
        return blocked(self.portal, self.thing(*arguments, **named))

    def __enter__(self) -> Any:
        return blocked(self.portal, self.thing.__aenter__())

    def __exit__(self, *raised: object) -> Any:
        return blocked(self.portal, self.thing.__aexit__(*raised))

    def __iter__(self) -> Iterator[Any]:
        iterator = self.thing.__aiter__()
        try:
            while (each := self._next(iterator)) is not _END:
                yield each
        finally:
            if inspect.isasyncgen(iterator):
                blocked(self.portal, iterator.aclose())

    def __next__(self) -> Any:
        if (each := self._next(self.thing)) is _END:
            raise StopIteration
        return each

    def _next(self, iterator: Any) -> Any:
        async def one() -> Any:
            return await anext(iterator, _END)

        return blocked(self.portal, one())


def blocked(portal: BlockingPortal, value: Any) -> Any:
    """Return a value as synchronous code takes it; what is awaitable is awaited now."""
    if inspect.iscoroutine(value):

        async def awaited() -> Any:
            return await value

        return blocked(portal, portal.call(awaited))
    if isinstance(value, list):
        return [blocked(portal, each) for each in value]
    asynchronous = (
        inspect.ismethod(value)
        or inspect.isasyncgen(value)
        or hasattr(value, "__aenter__")
        or type(value).__module__.startswith("agent_runner._async.")
    )
    return Blocked(portal, value) if asynchronous else value


@dataclass(frozen=True)
class Half:
    """Makes clients of one half of the SDK, and sandboxes with connections of their own."""

    client: Connect
    sandbox: Callable[..., Sandbox]


@contextmanager
def half(flavour: str) -> Iterator[Half]:
    """Yield one half of the SDK, to be used as the synchronous one."""
    if flavour == "sync":
        yield Half(Client, Sandbox.create)
        return
    with start_blocking_portal() as portal:

        def connect(url: str, api_key: str, **options: Any) -> Client:
            return cast("Client", Blocked(portal, AsyncClient(url, api_key, **options)))

        yield Half(connect, Blocked(portal, AsyncSandbox.create))


def made(api: Client, kind: Callable[..., T], *arguments: Any) -> T:
    """Return something of the client's half that is made of its connection and these."""
    if not isinstance(api, Blocked):
        return kind(api._http, *arguments)
    twin = getattr(agent_runner, f"Async{kind.__name__}")
    return cast("T", Blocked(api.portal, twin(api.thing._http, *arguments)))
