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
    once: bool = False
    """Whether only one version tries it: it takes long, and sends what shorter cases send, too."""


class Cases(dict[str, Case]):
    """Cases by name, in the order in which they run."""

    def case(self, *needs: str, once: bool = False) -> Callable[[Try], Try]:
        """Register a function as a case of its own name."""

        def register(attempt: Try) -> Try:
            name = getattr(attempt, "__name__", "")
            assert name not in self, f"two cases are called {name}"
            self[name] = Case(name, attempt, needs, once)
            return attempt

        return register

    def of_version(self, *, whole: bool) -> list[Case]:
        """Return the cases that a version tries: the whole, or without those for one alone."""
        return [each for each in self.values() if whole or not each.once]
