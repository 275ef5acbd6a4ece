"""The world of a case: an SDK's classes, sync or async, and a sandbox that cases share."""

import importlib
import inspect
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

SHARED_S = 600
OWN_S = 120


class World:
    """One version of an SDK in one of its two forms.

    The cases are written once: `await world(value)` awaits what the async classes return, and
    takes what the sync ones return as it is.
    """

    def __init__(self, package: str, *, sync: bool) -> None:
        self.sync = sync
        self.sdk: Any = importlib.import_module("e2b")
        self.package: Any = importlib.import_module(package)
        self.box: Any = None
        """The sandbox that cases share; each leaves it well."""

    async def __call__(self, value: Any) -> Any:
        """Return a value, once it is there."""
        return await value if inspect.isawaitable(value) else value

    @property
    def Sandbox(self) -> Any:  # noqa: N802 - a class
        """The class of sandboxes."""
        return self.named("Sandbox")

    def named(self, name: str) -> Any:
        """Return a class in this form, such as `AsyncSandbox` for `Sandbox`; None if missing."""
        return getattr(self.package, name if self.sync else f"Async{name}", None)

    def given(self, name: str) -> str:
        """Return a fact about the deployment."""
        return os.environ[f"E2B_TEST_{name}"]

    @asynccontextmanager
    async def own(self, **options: Any) -> AsyncIterator[Any]:
        """Yield a sandbox of this case's own, killed afterwards."""
        box = await self(self.Sandbox.create(**{"timeout": OWN_S, **options}))
        try:
            yield box
        finally:
            with suppress(self.sdk.NotFoundException):
                await self(box.kill())

    async def raises(self, kind: str, value: Any) -> Any:
        """Return the failure of an operation. `value` is a call without arguments."""
        expected = getattr(self.sdk, kind)
        try:
            got = await self(value())
        except expected as error:
            return error
        raise AssertionError(f"no {kind}, but {got!r}")

    def lacks(self, needs: tuple[str, ...]) -> str | None:
        """Return the first need that this version does not have."""
        return next((each for each in needs if not self._has(each)), None)

    def _has(self, need: str) -> bool:
        path, _, parameter = need.partition(":")
        head, *rest = path.split(".")
        found = getattr(self.box, head, None) if head.islower() else self.named(head)
        if found is None:
            found = getattr(self.sdk, head, None)
        for name in rest:
            found = getattr(found, name, None)
        if found is None or not parameter:
            return found is not None
        return parameter in inspect.signature(found).parameters


async def drained(stream: Any) -> bytes:
    """Return all that an iterator yields, sync or async."""
    if hasattr(stream, "__aiter__"):
        return b"".join([each async for each in stream])
    return b"".join(stream)
