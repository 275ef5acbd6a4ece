"""The node of a running sandbox, remembered for a moment so that no command waits for PostgreSQL.

The memory may be out of date. The node, which knows, then refuses, and the row is read again.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

from runner.auth.caller import Caller
from runner.door.grants import Knock
from runner.store import sandboxes
from runner.store.db import Database
from runner.store.sandboxes import Whereabouts
from runner.words.errors import Conflict, Gone, NodeAway, NotFound
from runner.words.lives import EndReason, Life
from runner.words.living import StoredSandbox

FRESH_S = 2.0
"""For how long a sandbox counts as running after it was seen running."""
MOST = 10_000
"""How many are remembered at once."""
NO_SANDBOX = "no such sandbox"
KIND = "sandbox"
"""The name that audit records have for it."""


@dataclass(frozen=True, slots=True)
class _Seen:
    until: float
    door: str | None


class SandboxPlaces:
    """The sandboxes of all tenants that this process has lately seen running."""

    def __init__(self, database: Database, *, fresh_s: float = FRESH_S, most: int = MOST) -> None:
        self._database = database
        self._fresh_s = fresh_s
        self._most = most
        self._seen: OrderedDict[tuple[UUID, UUID], _Seen] = OrderedDict()
        self._users: OrderedDict[tuple[UUID, UUID], str | None] = OrderedDict()

    async def locate(self, caller: Caller, sandbox_id: UUID) -> Knock:
        """Return the knock for the door of the sandbox's node, if the sandbox runs.

        Raises Asleep for one that its use may resume. Otherwise raises NotFound, also for another
        tenant's sandbox, Gone with the reason once it has ended, NodeAway while it starts or
        resumes, and Conflict in any other state.
        """
        seen = self._seen.get((caller.tenant_id, sandbox_id))
        if seen is not None and seen.until > _now():
            return knock_of(caller, sandbox_id, seen.door)
        found = await self._find(caller, sandbox_id)
        door = require_running(found)
        self.remember(caller.tenant_id, sandbox_id, door)
        return knock_of(caller, sandbox_id, door)

    async def knock(self, caller: Caller, sandbox_id: UUID) -> Knock:
        """Return the knock for the door of the sandbox's node, whatever state it is in.

        Raises NotFound, also for another tenant's sandbox, and NodeAway if its node was removed.
        """
        return knock_to(caller, sandbox_id, await self.find(caller, sandbox_id))

    async def find(self, caller: Caller, sandbox_id: UUID) -> Whereabouts:
        """Return where a sandbox is now. Raises NotFound, also for another tenant's sandbox."""
        found = await self._find(caller, sandbox_id)
        if found is None:
            raise NotFound(NO_SANDBOX)
        return found

    async def _find(self, caller: Caller, sandbox_id: UUID) -> Whereabouts | None:
        async with self._database.single(caller.tenant_id) as tx:
            found = await sandboxes.where(tx, sandbox_id)
        if found is not None:
            self.learn_user(caller.tenant_id, sandbox_id, found.user)
        return found

    async def user_of(self, caller: Caller, sandbox_id: UUID) -> str | None:
        """Return the user of a sandbox's processes, if its template names one. Raises NotFound.

        It never changes, so it is remembered for longer than a moment.
        """
        if (key := (caller.tenant_id, sandbox_id)) in self._users:
            return self._users[key]
        return (await self.find(caller, sandbox_id)).user

    def learn_user(self, tenant_id: UUID, sandbox_id: UUID, user: str | None) -> None:
        """Remember the user of a sandbox."""
        self._users[tenant_id, sandbox_id] = user
        self._users.move_to_end((tenant_id, sandbox_id))
        while len(self._users) > self._most:
            self._users.popitem(last=False)

    def remember(self, tenant_id: UUID, sandbox_id: UUID, door: str | None) -> None:
        """Count a sandbox as running at this door for a moment."""
        self._seen[tenant_id, sandbox_id] = _Seen(_now() + self._fresh_s, door)
        self._seen.move_to_end((tenant_id, sandbox_id))
        while len(self._seen) > self._most:
            self._seen.popitem(last=False)

    def forget(self, tenant_id: UUID, sandbox_id: UUID) -> None:
        """Have the next call read the row."""
        self._seen.pop((tenant_id, sandbox_id), None)


class Asleep(Conflict):
    """The sandbox is paused, or about to be or no longer to be; its use may resume it."""


_ASLEEP = frozenset({Life.PAUSING, Life.PAUSED, Life.RESUMING})


def require_running(found: Whereabouts | None) -> str | None:
    """Return its node's door.

    Raises NotFound, Gone, Asleep or Conflict unless the sandbox runs, and what `door_of` raises.
    """
    match found:
        case None:
            raise NotFound(NO_SANDBOX)
        case Whereabouts(state=Life.ENDED):
            raise ended(found)
        case Whereabouts(state=Life.RUNNING):
            return door_of(found)
        case Whereabouts(auto_resume=True, state=state) if state in _ASLEEP:
            raise Asleep(f"this sandbox is {state.value}: resume it first")
        case Whereabouts(state=Life.PAUSED):
            raise Conflict("this sandbox is paused: resume it first")
        case Whereabouts(state=Life.STARTING | Life.RESUMING as state):
            raise NodeAway(f"this sandbox is {state.value}: try again in a moment")
        case Whereabouts(state=state):
            raise Conflict(f"this sandbox is {state.value}")


def door_of(found: Whereabouts) -> str | None:
    """Return its node's door. Raises NodeAway if the node was removed.

    Such a host still has the certificate of a node. Nobody gives it anything any more.
    """
    if found.node_removed:
        raise NodeAway("the node of this sandbox was removed; the sandbox ends with its lease")
    return found.door


def ended(found: Whereabouts | StoredSandbox) -> Gone:
    """Return the error which says that a sandbox has ended, why, and where its files are."""
    return gone(found.reason or EndReason.INTERNAL_ERROR, found.detail, found.kept_as)


def gone(reason: EndReason, detail: str | None, kept_as: UUID | None = None) -> Gone:
    """Return the same for an end that its row may not hold yet."""
    more = "" if detail in {None, reason.value} else f": {detail}"
    return Gone(f"this sandbox has ended ({reason.value}){more}", reason.value, kept_as)


def took_commands(made: StoredSandbox) -> StoredSandbox:
    """Return it if it was whole. Raises Gone if it never was, NodeAway if it may yet be."""
    if made.started_at is not None and not made.filling:
        return made
    if made.state is Life.ENDED:
        raise ended(made)
    if made.started_at is not None:
        raise NodeAway("this sandbox is still being given its files: try again in a moment")
    raise NodeAway(f"this sandbox is {made.state.value}: try again in a moment")


def knock_to(caller: Caller, sandbox_id: UUID, found: Whereabouts) -> Knock:
    """Return the knock for the door of a sandbox's node. Raises NodeAway if that was removed."""
    return knock_of(caller, sandbox_id, door_of(found))


def knock_of(caller: Caller, sandbox_id: UUID, door: str | None) -> Knock:
    """Return what tells the node behind a door who calls, and for which sandbox."""
    origin = caller.origin
    return Knock(
        tenant_id=caller.tenant_id,
        sandbox_id=sandbox_id,
        actor=caller.actor,
        ip=origin.ip,
        user_agent=origin.user_agent,
        request_id=origin.request_id,
        trace=caller.trace,
        door=door,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
