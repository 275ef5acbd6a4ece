"""The keys that may hold a token of a sandbox."""

from uuid import UUID

from runner.store.transaction import Transaction
from runner.words.errors import Conflict

MOST_OF_ONE = 64
"""How many usable keys may hold tokens of a sandbox, besides the key that made it."""
_FULL = (
    f"{MOST_OF_ONE} API keys hold tokens of this sandbox already, and no more can: use one of them,"
    " or revoke one"
)


async def add(tx: Transaction, sandbox_id: UUID, prefix: str) -> None:
    """Note that the key of that prefix was given a token of a sandbox that it did not make.

    Raises Conflict if too many other keys hold tokens of it.
    """
    row = await tx.one("holders.add", sandbox_id=sandbox_id, prefix=prefix, most=MOST_OF_ONE)
    if row is not None and row["is_full"]:
        raise Conflict(_FULL)


async def of(tx: Transaction, sandbox_id: UUID) -> list[str]:
    """Return the prefixes of usable keys that may hold a token of a living sandbox."""
    return [row["prefix"] for row in await tx.all("holders.of", sandbox_id=sandbox_id)]


async def search(tx: Transaction, *, limit: int, each: int) -> bytes:
    """Return living sandboxes of all tenants with prefixes of usable keys, at most `limit`.

    Tenants take turns until each has had `each` of them. Every 28 bytes are the 16 of a sandbox's
    id and the 12 of a prefix.
    """
    row = await tx.one("holders.search", limit=limit, each=each)
    return bytes(row["found"]) if row else b""
