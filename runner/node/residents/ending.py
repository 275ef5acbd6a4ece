"""Puts the end of a sandbox on record, and signs its receipt."""

from collections.abc import Mapping
from uuid import UUID

import structlog

from runner.audit import events as audit
from runner.base.signing import Signer
from runner.node.residents.journal import sandbox_event
from runner.node.runs.egress import WayOut
from runner.receipts.sandbox_document import Lived, sandbox_receipt
from runner.sandbox.guest.channel import Closed
from runner.sandbox.guest.living import LivingSandbox
from runner.store import receipts, sandboxes
from runner.store.residents import LifeTimes
from runner.store.transaction import Transaction
from runner.words.errors import RunnerError
from runner.words.execution import JSON
from runner.words.lives import EndReason

_log = structlog.get_logger("runner.worker")


class EndRecords:
    """Writes, in the transaction that ends a sandbox, everything else that its end needs."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    async def write(
        self,
        tx: Transaction,
        held: tuple[UUID, UUID],
        reason: EndReason,
        times: LifeTimes,
        lived: Lived,
        facts: Mapping[str, JSON] | None = None,
    ) -> None:
        """Append the record of the end with `facts`, and store the receipt. `held`: tenant, id."""
        tenant_id, sandbox_id = held
        # Before its own record: the receipt counts what came before.
        on_record = await receipts.count_of_sandbox(tx, sandbox_id)
        said: dict[str, JSON] = {"reason": reason.value, **(facts or {})}
        event = sandbox_event(audit.Action.SANDBOX_END, sandbox_id, said)
        head = await audit.append_now(tx, tenant_id, event)
        sandbox = await sandboxes.get(tx, sandbox_id)
        if sandbox is None:
            _log.error("receipt_not_made", sandbox=str(sandbox_id), why="its row is gone")
            return
        body = sandbox_receipt(sandbox, reason, times, lived, on_record, head)
        signed = self._signer.sign(receipts.SANDBOX_KIND, body)
        receipts.insert_of_sandbox_later(tx, sandbox_id, signed)


def lived(
    guest: LivingSandbox, way: WayOut, node: str, cpu_s: float | None, records_lost: int
) -> Lived:
    """Return what its node knows of a sandbox at its end."""
    residence = guest.residence
    return Lived(
        node=node,
        container=residence.sandbox_id,
        image_digest=residence.image_digest,
        profile_hash=residence.profile_hash,
        isolation=guest.container.isolation,
        egress_policy_hash=way.policy_hash,
        egress=way.usage,
        cpu_s=cpu_s,
        records_lost=records_lost,
    )


async def why_lost(guest: LivingSandbox) -> tuple[EndReason, str]:
    """Return why a sandbox ended whose supervisor has hung up."""
    lost = guest.lost.result()
    if not isinstance(lost, Closed):
        return EndReason.PROTOCOL_VIOLATION, lost.detail
    try:
        if await guest.died_of_memory():
            return EndReason.OUT_OF_MEMORY, "its processes took more memory than it has"
    except RunnerError as error:
        return EndReason.LOST, f"its supervisor has ended; {error.detail}"
    return EndReason.LOST, "its supervisor has ended"
