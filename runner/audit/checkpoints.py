"""Signed checkpoints: where a chain stood at a time, in words that the database cannot make up.

The worker signs a checkpoint when a chain has grown, and writes it to its log as well, so that a
copy is elsewhere. It first verifies the part that was added since the checkpoint before: a chain
that was cut or rewritten is reported, and never sealed over.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from runner.audit import chain
from runner.audit.chain import Fault, Head, Pin, Verdict
from runner.audit.events import timestamp
from runner.errors import NotReady, RunnerError
from runner.signing import BadSignature, PublicKey, Signer, verify
from runner.store import receipts
from runner.store.db import Database, Transaction

KIND = "agent-runner/audit-checkpoint/v1"
SWEEP_S = 0.5
BATCH = 100
POLL_S = 0.1
SILENCE_S = 60.0
"""How long one chain that does not hold is not reported again."""

_log = structlog.get_logger("runner.audit")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement: record `seq` of the tenant's chain had this hash at that time."""

    tenant: str
    seq: int
    hash: bytes
    at: str
    key: str
    document: str

    @property
    def head(self) -> Head:
        """The place in the chain."""
        return Head(self.seq, self.hash)

    @property
    def pin(self) -> Pin:
        """What a chain has to pass through."""
        return Pin(self.seq, self.hash, f"the checkpoint signed {self.at}")


@dataclass(frozen=True, slots=True)
class Checked:
    """What a verification against the newest checkpoint found."""

    verdict: Verdict
    checkpoint: Checkpoint | None


def sign(signer: Signer, tenant: UUID, head: Head, at: datetime) -> str:
    """Return the signed text of a checkpoint."""
    body = {
        "tenant": str(tenant),
        "seq": head.seq,
        "hash": head.hash.hex(),
        "at": timestamp(at),
    }
    return signer.sign(KIND, body)


def read(document: str, keys: tuple[PublicKey, ...], tenant: str | None = None) -> Checkpoint:
    """Return what a signed text states. Raises BadSignature, also for another tenant's."""
    match verify(document, KIND, keys):
        case {"tenant": str(of), "seq": int(seq), "hash": str(hash_), "at": str(at)}:
            key: str = json.loads(document)["key"]
            try:
                found = Checkpoint(of, seq, bytes.fromhex(hash_), at, key, document)
            except ValueError:
                raise BadSignature("not a checkpoint: its hash is none") from None
        case _:
            raise BadSignature("not a checkpoint: a field is missing")
    if tenant is not None and found.tenant != tenant:
        raise BadSignature(f"the checkpoint is of tenant {found.tenant}")
    return found


async def newest(tx: Transaction, tenant: UUID) -> Checkpoint | None:
    """Return the tenant's newest checkpoint. Raises BadSignature if it is not one of ours."""
    row = await tx.one("audit.newest_checkpoint")
    if row is None:
        return None
    keys = tuple(await receipts.list_keys(tx))
    return read(row["document"], keys, str(tenant))


async def verify_log(tx: Transaction, tenant: UUID, known: Sequence[Pin] = ()) -> Checked:
    """Verify the whole log in a `snapshot` transaction, against the newest checkpoint, too.

    `known` are places that the caller knows from elsewhere.
    """
    try:
        checkpoint = await newest(tx, tenant)
    except BadSignature as error:
        verdict = await chain.verify(tx, pins=known)
        unsigned = Fault(verdict.records + 1, f"the newest checkpoint is not ours: {error}")
        fault = verdict.fault or unsigned
        return Checked(Verdict(verdict.records, verdict.head, fault), None)
    pins = [*([checkpoint.pin] if checkpoint else []), *known]
    return Checked(await chain.verify(tx, pins=pins), checkpoint)


async def covering(database: Database, tenant: UUID, seq: int, *, within_s: float) -> Checkpoint:
    """Wait for a checkpoint of record `seq` or a later one, and return it.

    Raises NotReady when no worker signs one in time, or what is stored is not one of ours.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            async with database.tenant(tenant) as tx:
                found = await newest(tx, tenant)
        except BadSignature as error:
            raise NotReady(f"the newest checkpoint is not one of ours: {error}") from None
        if found is not None and found.seq >= seq:
            return found
        if time.monotonic() > deadline:
            raise NotReady("no worker has signed where the audit log stands; try again")
        await asyncio.sleep(POLL_S)


class Checkpointer:
    """Seals chains that have grown: after `age` at most, and at once for an export."""

    def __init__(self, *, database: Database, signer: Signer, age: timedelta) -> None:
        self._database = database
        self._signer = signer
        self._age = age
        self._silent_until: dict[UUID, float] = {}

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            try:
                await self.sweep()
            except RunnerError as error:
                _log.warning("sweep_failed", sweep="checkpoints", error=error.detail)
            except Exception:  # noqa: BLE001 - told and tried again: unsealed logs would be worse
                _log.exception("sweep_fault", sweep="checkpoints")
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """Seal every chain that is due."""
        now = time.monotonic()
        self._silent_until = {of: end for of, end in self._silent_until.items() if end > now}
        silent = list(self._silent_until)
        async with self._database.statements() as tx:
            rows = await tx.all("audit.chains_due", age=self._age, except_=silent, limit=BATCH)
        for tenant in (row["tenant_id"] for row in rows):
            fault = await self._seal(tenant)
            if fault is not None:
                self._silent_until[tenant] = time.monotonic() + SILENCE_S
                _log.error(
                    "audit_chain_broken", tenant=str(tenant), seq=fault.seq, fault=fault.what
                )

    async def _seal(self, tenant: UUID) -> Fault | None:
        async with self._database.tenant(tenant, snapshot=True) as tx:
            found = await _grown(tx, tenant)
        if isinstance(found, Fault):
            return found
        document = sign(self._signer, tenant, found, datetime.now(UTC))
        async with self._database.tenant(tenant) as tx:
            added = await tx.run("audit.add_checkpoint", seq=found.seq, document=document)
        if added:
            # A copy outside the database, wherever this log is kept.
            _log.info(
                "audit_checkpoint",
                tenant=str(tenant),
                seq=found.seq,
                hash=found.hash.hex(),
                checkpoint=document,
            )
        return None


async def _grown(tx: Transaction, tenant: UUID) -> Head | Fault:
    """Return the head of a chain that holds since its newest checkpoint, or what does not."""
    try:
        before = await newest(tx, tenant)
    except BadSignature as error:
        return Fault(0, f"the newest checkpoint is not ours: {error}")
    # From the signed hash on: what follows has to follow that, whatever the log now says it was.
    verdict = await chain.verify(tx, before.head if before else chain.START)
    return verdict.fault or Head(verdict.records, bytes.fromhex(verdict.head))
