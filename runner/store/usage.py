"""The usage ledger: a row for each attempt that ended and each slice of a sandbox, sums by day.

The function that ends an attempt also writes its row, in the same transaction, and the database
adds it to its day. An attempt used what its execution's result says, even if its worker failed
after the program had begun. An attempt that was lost with its worker, or that a draining worker
returned, used nothing that is charged.

A living sandbox's use is entered in slices. Its row says how far its counters have been entered,
and is written together with the slice. So a slice that is repeated after a failure enters only what
is new, and a later process of its node continues where the earlier one stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from runner.store.executions import StoredArtifact
from runner.store.residents import SandboxHold
from runner.store.transaction import Transaction
from runner.words.execution import Claim, Result

_PRECISION = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Day:
    """The usage of one day (UTC). Memory is the limit times the time, not what was touched.

    The `sandbox_` fields say how much of it living sandboxes used.
    """

    day: date
    attempts: int
    wall_s: Decimal
    cpu_s: Decimal
    memory_gib_s: Decimal
    egress_bytes_up: int
    egress_bytes_down: int
    artifact_bytes: int
    sandbox_wall_s: Decimal
    sandbox_cpu_s: Decimal
    sandbox_memory_gib_s: Decimal
    port_bytes_in: int
    port_bytes_out: int


@dataclass(frozen=True, slots=True)
class SandboxReading:
    """The present counters of a living sandbox. They only grow."""

    cpu_s: float | None
    """Of its container since it was made; None if nobody can tell."""
    egress_bytes_up: int = 0
    """Through the egress session that this process of its node opened for it."""
    egress_bytes_down: int = 0
    port_bytes_in: int = 0
    """Through its ports, since this process of its node has held it."""
    port_bytes_out: int = 0


def columns(result: Result, artifacts: Sequence[StoredArtifact]) -> dict[str, object]:
    """Return the columns to enter when an attempt ends with this result."""
    usage, egress = result.usage, result.egress
    return {
        "wall_s": _exactly(usage.wall_s),
        "cpu_s": None if usage.cpu_s is None else _exactly(usage.cpu_s),
        "egress_bytes_up": egress.bytes_up if egress else 0,
        "egress_bytes_down": egress.bytes_down if egress else 0,
        "artifact_bytes": sum(stored.artifact.size for stored in artifacts),
    }


def record_requeued_later(tx: Transaction, claim: Claim, started_at: datetime | None) -> None:
    """Enter an attempt that was just given up for another one, in the next round trip."""
    tx.later(
        "usage.record_requeued",
        execution_id=claim.execution_id,
        attempt=claim.attempt,
        started_at=started_at,
    )


async def count_sandbox(
    tx: Transaction, hold: SandboxHold, reading: SandboxReading, *, ended: bool = False
) -> bool:
    """Enter a living sandbox's use since its last slice; return False if another process holds it.

    Call it before the state changes to or from `paused`, as a slice belongs to one of the two.
    """
    return bool(await tx.run("usage.count_sandbox", **_slice(hold, reading, ended=ended)))


def count_sandbox_later(tx: Transaction, hold: SandboxHold, reading: SandboxReading) -> None:
    """Do the same with what follows."""
    tx.later("usage.count_sandbox", **_slice(hold, reading, ended=False))


def _slice(hold: SandboxHold, reading: SandboxReading, *, ended: bool) -> dict[str, object]:
    return {
        "sandbox_id": hold.sandbox_id,
        "instance": hold.instance,
        "cpu_s": None if reading.cpu_s is None else _exactly(reading.cpu_s),
        "egress_bytes_up": reading.egress_bytes_up,
        "egress_bytes_down": reading.egress_bytes_down,
        "port_bytes_in": reading.port_bytes_in,
        "port_bytes_out": reading.port_bytes_out,
        "ended": ended,
    }


async def days(tx: Transaction, first: date, last: date) -> list[Day]:
    """Return the sums of each day from `first` to `last` on which something was entered."""
    return [Day(**row) for row in await tx.all("usage.days", first=first, last=last)]


def _exactly(seconds: float) -> Decimal:
    return Decimal(repr(seconds)).quantize(_PRECISION)
