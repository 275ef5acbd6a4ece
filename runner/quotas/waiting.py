"""The queue of the whole deployment, and the tenants that it still accepts when full."""

import math
from dataclasses import dataclass

from runner.words.errors import Overloaded

LONGEST_RETRY_S = 60


@dataclass(frozen=True, slots=True)
class Waiting:
    """Executions that wait in the whole deployment. `interval_s` is None if unknown."""

    executions: int
    tenants: int
    interval_s: float | None


def overload(waiting: Waiting, most: int, own: int) -> Overloaded | None:
    """Return why a full deployment accepts no more from this tenant now; None if it does.

    One tenant's executions may fill the queue. A tenant with less than its equal share of the
    waiting places is still accepted, so no tenant can shut out the others.
    """
    if waiting.executions < most or own < most / (waiting.tenants + (own == 0)):
        return None
    beyond = waiting.executions - most + 1
    soon = math.ceil(beyond * (waiting.interval_s or 0))
    return Overloaded(
        f"the queue of this deployment is full ({waiting.executions} of {most}); try again",
        retry_after_s=min(max(soon, 1), LONGEST_RETRY_S),
    )
