"""A case: one thing that the SDK promises, tried through one version of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tests.support.e2b_sdks.world import World

Try: TypeAlias = "Callable[[World], Awaitable[None]]"


@dataclass(frozen=True)
class Case:
    """A case, by name. `needs` are the parts of the SDK that it is about.

    A need is written as `Sandbox.fork`, `files.write:metadata` (a parameter) or `SandboxQuery`.
    An old version that lacks one of them has no such case.
    """

    name: str
    attempt: Try
    needs: tuple[str, ...]


class Cases(dict[str, Case]):
    """Cases by name, in the order in which they run."""

    def case(self, *needs: str) -> Callable[[Try], Try]:
        """Register a function as a case of its own name."""

        def register(attempt: Try) -> Try:
            name = getattr(attempt, "__name__", "")
            assert name not in self, f"two cases are called {name}"
            self[name] = Case(name, attempt, needs)
            return attempt

        return register
