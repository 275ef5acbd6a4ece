"""API keys: nobody makes a key that can do more than their own; rotated, or revoked at once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from pydantic import TypeAdapter

from runner.audit.events import Action
from runner.auth import grants, keys
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.auth.rights import own_grant
from runner.base.tasks import uninterrupted
from runner.quotas.standing import too_many_keys
from runner.store import keys as stored_keys
from runner.store import rights
from runner.store.db import Database
from runner.store.keys import Grant, StoredKey
from runner.store.rights import Ended
from runner.store.transaction import Transaction
from runner.words.errors import Conflict, Invalid, NotFound, NotPermitted
from runner.words.ids import new_id
from runner.words.principal import PrincipalKind

NO_KEY = "no such API key"
KIND = "api_key"
_MOMENT: TypeAdapter[datetime | None] = TypeAdapter(datetime | None)
_ABOVE = "this key can do more than the one that asks"


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key. Show `token` now: it is stored nowhere."""

    key: StoredKey
    token: str = field(repr=False)


async def create(tx: Transaction, caller: Caller, name: str, asked: Grant) -> MadeKey:
    """Make a key with no more rights, no later end and no other networks than the caller's key.

    Raises Invalid for an end in the past, and what `grants.narrowed` raises.
    """
    own = await own_grant(tx, caller.principal, Permission.API_KEY_WRITE)
    if asked.expires_at is not None and asked.expires_at <= datetime.now(UTC):
        raise Invalid("must be in the future", "expires_at")
    made = await _make(tx, caller, name, grants.narrowed(own, asked))
    _record(tx, caller, Action.KEY_CREATE, made.key)
    return made


async def list_newest(tx: Transaction, *, before: UUID | None, limit: int) -> Sequence[StoredKey]:
    """Return keys, newest first, including revoked and expired ones."""
    return await stored_keys.list_newest(tx, before=before, limit=limit)


async def read(tx: Transaction, key_id: UUID, *, lock: bool = False) -> StoredKey:
    """Return a key without its token. Raises NotFound."""
    found = await stored_keys.get(tx, key_id, lock=lock)
    if found is None:
        raise NotFound(NO_KEY)
    return found


async def rotate(tx: Transaction, caller: Caller, key_id: UUID, overlap: timedelta) -> MadeKey:
    """Make a key with the same rights; the old one keeps working for `overlap`.

    Raises NotFound, NotPermitted, and Conflict for a key that has ended or was rotated already.
    """
    own = await own_grant(tx, caller.principal, Permission.API_KEY_WRITE)
    old = await read(tx, key_id, lock=True)
    if not grants.covers(own, old.grant):
        raise NotPermitted(_ABOVE)
    if old.revoked_at or old.replaced_by:
        raise Conflict("this key has already been revoked or rotated")
    if old.grant.expires_at is not None and old.grant.expires_at <= datetime.now(UTC):
        raise Conflict("this key has expired")
    made = await _make(tx, caller, old.name, old.grant)
    await stored_keys.replace(tx, old.id, by=made.key.id, overlap=overlap)
    _record(tx, caller, Action.KEY_ROTATE, made.key, {"replaces": old.prefix})
    return made


async def revoke(database: Database, caller: Caller, key_id: UUID) -> None:
    """End a key at once, with the keys and invitations that it made, and those that these made.

    The key that it replaced ends as well. The caller's own key stays, unless the caller names it.
    Revoking a key that has ended revokes what it made. Raises NotFound and NotPermitted.
    """
    async with database.tenant(caller.tenant_id) as tx:
        own = await own_grant(tx, caller.principal, Permission.API_KEY_WRITE)
        key = await read(tx, key_id, lock=True)
        if not grants.outranks(own.role, key.grant.role):
            raise NotPermitted(_ABOVE)
        # End the key alone first, so that it has ended even if the rest fails.
        ended = await rights.end_key_alone(tx, key_id)
        _record_ended(tx, caller, key, ended)

    async def end_the_rest() -> None:
        principal = caller.principal
        asking = principal.id if principal.kind is PrincipalKind.KEY else None
        async with database.tenant(caller.tenant_id) as tx:
            ended = await rights.end_key(tx, key_id, spared=asking)
            _record_ended(tx, caller, key, ended)

    # If the caller's own key has just ended, this request ends too, but the rest must still be
    # done.
    await uninterrupted(end_the_rest())


async def _make(tx: Transaction, caller: Caller, name: str, grant: Grant) -> MadeKey:
    if (refused := too_many_keys(await stored_keys.usable(tx))) is not None:
        raise refused
    made = keys.generate()
    id_ = new_id()
    await stored_keys.insert(
        tx,
        key_id=id_,
        prefix=made.prefix,
        hash_=made.hash,
        name=name,
        grant=grant,
        created_by=caller.actor,
    )
    return MadeKey(await read(tx, id_), made.token)


def _record_ended(tx: Transaction, caller: Caller, key: StoredKey, ended: Ended) -> None:
    if ended != Ended():
        _record(tx, caller, Action.KEY_REVOKE, key, asdict(ended))


def _record(
    tx: Transaction,
    caller: Caller,
    action: Action,
    key: StoredKey,
    more: Mapping[str, object] | None = None,
) -> None:
    grant = key.grant
    facts = {
        "prefix": key.prefix,
        "name": key.name,
        "role": grant.role.value,
        "permissions": None if grant.permissions is None else sorted(grant.permissions),
        "networks": None if grant.networks is None else [str(each) for each in grant.networks],
        "expires_at": _MOMENT.dump_python(grant.expires_at, mode="json"),
    }
    caller.record(tx, action, KIND, str(key.id), {**facts, **(more or {})})
