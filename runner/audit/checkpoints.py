"""Signed checkpoints: where a chain stood at a time, in words that the database cannot make up.

The worker signs a checkpoint when a chain has grown, and writes it to its log as well, so that a
copy is elsewhere. It first verifies the part that was added since the checkpoint before, against
what it remembers of its own (`memory`) and against the receipts: a chain that was cut or rewritten
is reported, and never sealed over.

Which keys are trusted is never asked of the database: whoever can rewrite a chain there can store a
key there, too. The keys come from `TrustedKeys`, files of the host.
"""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from runner.audit import chain
from runner.audit.chain import ChainCheck, Fault, Head, Pin
from runner.audit.events import timestamp
from runner.audit.memory import Memory
from runner.audit.pinned import contradicted, contradicting_receipt
from runner.base.duties import for_each
from runner.base.signing import BadSignature, PublicKey, Signer, TrustedKeys, verify
from runner.store.db import Database
from runner.store.transaction import Transaction
from runner.words.errors import NotReady

KIND = "agent-runner/audit-checkpoint/v1"
SWEEP_S = 0.5
BATCH = 100
POLL_S = 0.1
SILENCE_S = 60.0
"""How long one chain that does not hold is not reported again."""
PUT_OFF_S = 10.0
"""How long a chain waits that could not be sealed: others are due, too."""

_HASH = re.compile(r"[0-9a-f]{64}")
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

    verdict: ChainCheck
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
        case {"tenant": str(of), "seq": int(seq), "hash": str(hash_), "at": str(at)} if (
            is_hash(hash_) and type(seq) is int
        ):
            key: str = json.loads(document)["key"]
            found = Checkpoint(of, seq, bytes.fromhex(hash_), at, key, document)
        case _:
            raise BadSignature("not a checkpoint: a field is missing")
    if tenant is not None and found.tenant != tenant:
        raise BadSignature(f"the checkpoint is of tenant {found.tenant}")
    return found


async def newest(tx: Transaction, tenant: UUID, keys: tuple[PublicKey, ...]) -> Checkpoint | None:
    """Return the tenant's newest checkpoint. Raises BadSignature if none of the keys signed it."""
    row = await tx.one("audit.newest_checkpoint")
    return read(row["document"], keys, str(tenant)) if row else None


async def verify_log(
    database: Database, tenant: UUID, keys: tuple[PublicKey, ...], known: Sequence[Pin] = ()
) -> Checked:
    """Verify the whole log, in many short transactions: no connection is held while it computes.

    It must pass through its newest checkpoint, every stored receipt, and `known`, which are places
    that the caller knows from elsewhere.
    """
    try:
        async with database.tenant(tenant) as tx:
            checkpoint = await newest(tx, tenant, keys)
    except BadSignature as error:
        verdict = await chain.verify(database, tenant, pins=known)
        unsigned = Fault(0, f"the newest checkpoint is not ours: {error}")
        place = verdict.fault or await contradicting_receipt(database, tenant, keys)
        fault = Fault(place.seq, f"{place.what}; {unsigned.what}") if place else unsigned
        return Checked(ChainCheck(verdict.records, verdict.head, fault), None)
    pins = [*([checkpoint.pin] if checkpoint else []), *known]
    verdict = await chain.verify(database, tenant, pins=pins)
    if verdict.fault is None:
        verdict = replace(verdict, fault=await contradicting_receipt(database, tenant, keys))
    return Checked(verdict, checkpoint)


async def covering(
    database: Database, tenant: UUID, seq: int, keys: TrustedKeys, *, within_s: float
) -> Checkpoint:
    """Wait for a checkpoint of record `seq` or a later one, and return it.

    Raises NotReady when no worker signs one in time, or what is stored is not one of ours.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            async with database.tenant(tenant) as tx:
                found = await newest(tx, tenant, keys.read())
        except BadSignature as error:
            raise NotReady(f"the newest checkpoint is not one of ours: {error}") from None
        if found is not None and found.seq >= seq:
            return found
        if time.monotonic() > deadline:
            raise NotReady("no worker has signed where the audit log stands; try again")
        await asyncio.sleep(POLL_S)


def is_hash(text: str) -> bool:
    """Return whether this is a SHA-256 in the one way in which we write it."""
    return _HASH.fullmatch(text) is not None


class Checkpointer:
    """Seals chains that have grown: after `age` at most, and at once for an export."""

    def __init__(
        self,
        *,
        database: Database,
        signer: Signer,
        trusted: TrustedKeys,
        memory: Memory,
        age: timedelta,
    ) -> None:
        self._database = database
        self._signer = signer
        self._trusted = trusted
        self._memory = memory
        self._age = age
        self._silent_until: dict[UUID, float] = {}

    async def sweep(self) -> None:
        """Seal every chain that is due, also those behind one that cannot be sealed.

        Raises what went wrong first. Its chain is put off, so that the next sweep begins with
        another one.
        """
        now = time.monotonic()
        self._silent_until = {of: end for of, end in self._silent_until.items() if end > now}
        silent = list(self._silent_until)
        async with self._database.statements() as tx:
            rows = await tx.all("audit.chains_due", age=self._age, except_=silent, limit=BATCH)
        await for_each((row["tenant_id"] for row in rows), self._seal_or_put_off)

    async def _seal_or_put_off(self, tenant: UUID) -> None:
        try:
            fault = await self._seal(tenant)
        except Exception as error:
            self._silent_until[tenant] = time.monotonic() + PUT_OFF_S
            _log.error("audit_chain_not_sealed", tenant=str(tenant), error=repr(error))
            raise
        if fault is not None:
            self._silent_until[tenant] = time.monotonic() + SILENCE_S
            _log.error("audit_chain_broken", tenant=str(tenant), seq=fault.seq, fault=fault.what)

    async def _seal(self, tenant: UUID) -> Fault | None:
        found = await self._grown(tenant)
        if isinstance(found, Fault):
            return found
        document = sign(self._signer, tenant, found, datetime.now(UTC))
        # Before it is stored: what was ever sealed is known here, whatever the database forgets.
        await asyncio.to_thread(self._memory.put, tenant, document)
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

    async def _grown(self, tenant: UUID) -> Head | Fault:
        """Return the head of a chain that holds since it was last sealed, or what does not."""
        keys = self._trusted.read()
        try:
            async with self._database.tenant(tenant) as tx:
                before = await newest(tx, tenant, keys)
        except BadSignature as error:
            return Fault(0, f"the newest checkpoint is not ours: {error}")
        try:
            kept = self._memory.get(tenant)
            own = read(kept, keys, str(tenant)) if kept is not None else None
        except BadSignature as error:
            return Fault(0, f"what this worker remembers to have sealed is not ours: {error}")
        start = before.head if before else chain.START
        pin = Pin(own.seq, own.hash, f"what this worker sealed {own.at}") if own else None
        if pin is not None and pin.seq <= start.seq:
            # Sealed by another worker since: it may not have known what this one does.
            async with self._database.tenant(tenant) as tx:
                row = await tx.one("audit.hash", seq=pin.seq)
            if row is None or row["hash"] != pin.hash:
                return Fault(pin.seq, f"record {pin.seq} is not the one of {pin.source}")
        # From the signed hash on: what follows has to follow that, whatever the log says it was.
        verdict = await chain.verify(self._database, tenant, start, [pin] if pin else [])
        fault = verdict.fault
        if fault is None:
            async with self._database.tenant(tenant) as tx:
                fault = await contradicted(tx, after=start.seq)
        return fault or Head(verdict.records, bytes.fromhex(verdict.head))
