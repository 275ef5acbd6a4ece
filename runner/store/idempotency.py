"""Idempotency keys: for what, and by which request, a key was first used."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar
from uuid import UUID

from runner.store.transaction import Transaction
from runner.words.errors import Conflict

Id = TypeVar("Id", UUID, str)


@dataclass(frozen=True, slots=True)
class KeyUse:
    """The first use of an idempotency key: an execution, a sandbox, or a snapshot's object."""

    request_hash: bytes
    execution_id: UUID | None
    sandbox_id: UUID | None
    object_key: str | None = None


@dataclass(frozen=True, slots=True)
class Once:
    """An idempotency key, and the fingerprint of the request that came with it.

    `same` tells whether the stored fingerprint of the first use is of the same request.
    """

    key: str
    fingerprint: bytes
    same: Callable[[bytes], Awaitable[bool]]

    async def reserve(
        self,
        tx: Transaction,
        *,
        execution_id: UUID | None = None,
        sandbox_id: UUID | None = None,
        object_key: str | None = None,
    ) -> KeyUse | None:
        """Bind the key to what is being made; return its earlier use, if there was one.

        A second request with the same key waits here until the first one's transaction ends.
        """
        while not await tx.run(
            "idempotency.reserve",
            key=self.key,
            request_hash=self.fingerprint,
            execution_id=execution_id,
            sandbox_id=sandbox_id,
            object_key=object_key,
        ):
            if (used := await self.find(tx)) is not None:
                return used
            # Its holder has freed it in between.
        return None

    async def find(self, tx: Transaction) -> KeyUse | None:
        """Return the key's first use, if there was one."""
        row = await tx.one("idempotency.find", key=self.key)
        return KeyUse(**row) if row else None

    async def release(
        self, tx: Transaction, *, sandbox_id: UUID | None = None, object_key: str | None = None
    ) -> None:
        """Free the key if it is bound to this, of which nothing came: it can be used again."""
        await tx.run(
            "idempotency.release", key=self.key, sandbox_id=sandbox_id, object_key=object_key
        )

    def part(self, number: int) -> "Once":
        """Return a key for one of several things that the request makes; no client can send it."""
        return replace(self, key=f"{self.key} {number}")

    async def require_same(self, used: KeyUse, id_: Id | None) -> Id:
        """Return the id that the key was used for. Raises Conflict if that was another request.

        `id_` is the id in `used` if it is of the kind that this request makes, otherwise None.
        """
        if id_ is None or not await self.same(used.request_hash):
            raise Conflict("this Idempotency-Key was used for another request")
        return id_
