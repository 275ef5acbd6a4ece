"""Signed checkpoints: how far a chain had got at a time, with a signature the database cannot make.

When a chain has grown, the worker signs a checkpoint and also writes it to its own log, so that a
copy exists elsewhere. It first verifies the part that was added since the previous checkpoint,
against its own memory (`memory`) and against the receipts. If a chain was cut or rewritten, the
worker reports it and does not seal it.

The database never says which keys are trusted, because whoever can rewrite a chain there can store
a key there, too. The keys come from `TrustedKeys`, files on the host.
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
"""How long the worker waits before it reports the same broken chain again."""
PUT_OFF_S = 10.0
"""How long a chain that could not be sealed waits, so that others get their turn."""

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
        """The points that a chain has to pass through."""
        return Pin(self.seq, self.hash, f"the checkpoint signed {self.at}")


@dataclass(frozen=True, slots=True)
class Checked:
    """Result of a verification against the newest checkpoint."""

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
    """Return what a signed text states. Raises BadSignature, also if it is another tenant's."""
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
    """Verify the whole log in many short transactions; hold no connection while computing.

    The log must pass through its newest checkpoint, every stored receipt, and `known`: places that
    the caller knows from elsewhere.
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

    Raises NotReady if no worker signs one in time, or if the stored one is not ours.
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
    """Return whether this is a SHA-256 in the one form in which we write it."""
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
        """Seal every chain that is due, even if an earlier one cannot be sealed.

        Afterwards, raises the first error. The chain that failed is put off, so that the next sweep
        begins with another one.
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
        # Remember it before storing it: then this worker knows all that was ever sealed, whatever
        # the database forgets.
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
        """Return the chain's head if all since the last seal is right, otherwise the fault."""
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
            # Another worker has sealed it since, and may not have known what this one remembers.
            async with self._database.tenant(tenant) as tx:
                row = await tx.one("audit.hash", seq=pin.seq)
            if row is None or row["hash"] != pin.hash:
                return Fault(pin.seq, f"record {pin.seq} is not the one of {pin.source}")
        # Begin at the signed hash: the next record must follow it, whatever the log says the hash
        # was.
        verdict = await chain.verify(self._database, tenant, start, [pin] if pin else [])
        fault = verdict.fault
        if fault is None:
            async with self._database.tenant(tenant) as tx:
                fault = await contradicted(tx, after=start.seq)
        return fault or Head(verdict.records, bytes.fromhex(verdict.head))
