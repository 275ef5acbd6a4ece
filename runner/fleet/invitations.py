"""Invitations, by whose one-time tokens hosts join as nodes. Each step is on record.

The records are in the deployment's own log: a node belongs to no tenant.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from runner.audit import events as audit
from runner.audit.events import Action, Outcome
from runner.auth.caller import By
from runner.door.joining import JoinToken, digest
from runner.fleet.operating import KIND
from runner.store import node_invitations
from runner.store.db import Database
from runner.store.node_invitations import StoredInvitation
from runner.words.errors import NotFound
from runner.words.ids import PLATFORM_TENANT, new_id

DEFAULT = timedelta(hours=1)
LONGEST = timedelta(days=1)
NO_INVITATION = "no such invitation, or it was used or revoked"
SHOWN = 200
"""How many invitations are listed."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NewNodeInvitation:
    """An invitation with its token, which is not stored and cannot be shown again."""

    stored: StoredInvitation
    token: str = field(repr=False)


async def invite(
    database: Database, node: str, authority: bytes, by: By, lasting: timedelta = DEFAULT
) -> NewNodeInvitation:
    """Make a token by which one host may become this node, within `lasting`.

    `authority` is the public key of the deployment's authority, whom the host will trust.
    """
    if not timedelta(0) < lasting <= LONGEST:
        raise ValueError(f"an invitation for {lasting}")
    token, made = JoinToken.make(authority, node), new_id()
    async with database.tenant(PLATFORM_TENANT) as tx:
        stored = await node_invitations.insert(
            tx, made, node=node, hash_=digest(token.secret), made_by=by.actor, lasting=lasting
        )
        facts = {"invitation": str(made), "expires_at": stored.expires_at.isoformat()}
        audit.append(tx, PLATFORM_TENANT, by.did(Action.NODE_INVITE, KIND, node, facts))
    return NewNodeInvitation(stored, str(token))


async def list_invitations(
    database: Database, *, ended: bool = False
) -> Sequence[StoredInvitation]:
    """Return the newest invitations, newest first; those that have ended only with `ended`."""
    async with database.no_tenant() as tx:
        return await node_invitations.list_newest(tx, SHOWN, ended=ended)


async def revoke(database: Database, invitation_id: UUID, by: By) -> None:
    """End an invitation whose token was not used. Raises NotFound if there is none."""
    async with database.tenant(PLATFORM_TENANT) as tx:
        node = await node_invitations.revoke(tx, invitation_id)
        if node is None:
            raise NotFound(NO_INVITATION)
        facts = {"invitation": str(invitation_id)}
        audit.append(tx, PLATFORM_TENANT, by.did(Action.NODE_UNINVITE, KIND, node, facts))


async def admit(
    database: Database, secret: str, node: str, node_id: str, by: By, sign: Callable[[], T]
) -> T | None:
    """Use up the token for this node and return what `sign` makes; None if it opens nothing.

    If signing fails, the token stays good. A refusal is on record, too, without the token.
    """
    async with database.tenant(PLATFORM_TENANT) as tx:
        used = await node_invitations.use(tx, digest(secret), node=node, node_id=node_id)
        if used is None:
            denied = by.did(Action.NODE_CERTIFY, KIND, node_id, outcome=Outcome.DENIED)
            audit.append(tx, PLATFORM_TENANT, denied)
            return None
        made = sign()
        facts = {"invitation": str(used)}
        audit.append(tx, PLATFORM_TENANT, by.did(Action.NODE_CERTIFY, KIND, node_id, facts))
    return made
