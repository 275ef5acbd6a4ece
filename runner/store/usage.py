"""The usage ledger: a row for each attempt that ended, and sums by day.

A row is written in the transaction in which its attempt ends, by the function that ends it; the
database adds it to its day. What an attempt used is what its execution's result says, also when
its worker failed after the program had begun. An attempt that was lost with its worker, or handed
back by one that drained, used nothing that is charged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from runner.store.executions import StoredArtifact
from runner.store.transaction import Transaction
from runner.words.execution import Claim, Result

_PRECISION = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Day:
    """What ended on a day (UTC). Memory is what was set aside: the limit times wall-clock time."""

    day: date
    attempts: int
    wall_s: Decimal
    cpu_s: Decimal
    memory_gib_s: Decimal
    egress_bytes_up: int
    egress_bytes_down: int
    artifact_bytes: int


def columns(result: Result, artifacts: Sequence[StoredArtifact]) -> dict[str, object]:
    """Return what the statement that ends an attempt with this result enters for it."""
    usage, egress = result.usage, result.egress
    return {
        "wall_s": _exactly(usage.wall_s),
        "cpu_s": None if usage.cpu_s is None else _exactly(usage.cpu_s),
        "egress_bytes_up": egress.bytes_up if egress else 0,
        "egress_bytes_down": egress.bytes_down if egress else 0,
        "artifact_bytes": sum(stored.artifact.size for stored in artifacts),
    }


def record_requeued_later(tx: Transaction, claim: Claim, started_at: datetime | None) -> None:
    """Enter an attempt that has just been given up for another one, with what follows."""
    tx.later(
        "usage.record_requeued",
        execution_id=claim.execution_id,
        attempt=claim.attempt,
        started_at=started_at,
    )


async def days(tx: Transaction, first: date, last: date) -> list[Day]:
    """Return the sums of each day from `first` to `last` on which something ended."""
    return [Day(**row) for row in await tx.all("usage.days", first=first, last=last)]


def _exactly(seconds: float) -> Decimal:
    return Decimal(repr(seconds)).quantize(_PRECISION)
