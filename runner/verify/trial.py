"""Checks that are more than a program in a sandbox: run from outside, on the bench."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from runner.verify.bench import Bench
from runner.verify.check import Check, Observation

Attempt = Callable[[Bench, bool], Awaitable[Observation]]
"""Tries an attack from outside; the argument says whether the control is in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Check):
    """A check that is run from outside: by a hostile supervisor, client or queue."""

    attempt: Attempt
    lives: bool = False
    """Whether it also attacks what a process of a living sandbox is held to."""
