"""Sessions of operators: begun with an operator's key, which the browser then no longer needs.

They are made as users' sessions are: a random id in a cookie, stored as its hash, and a token
against CSRF. A session rests on its key. When that is revoked or expires, it has ended.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar
from uuid import UUID

from runner.audit import events as audit
from runner.audit.events import Action, Origin
from runner.auth import sessions
from runner.auth.caller import By
from runner.auth.holding import Holding, UnderWay
from runner.auth.sessions import Lifetime, SessionId
from runner.store import operators
from runner.store.db import Database
from runner.store.operators import NewOperatorSession, StoredOperatorSession
from runner.store.transaction import Transaction
from runner.words.errors import NotFound
from runner.words.ids import PLATFORM_TENANT, new_id
from runner.words.principal import Operator

NO_SESSION = "no such session"


@dataclass(frozen=True, slots=True)
class OperatorSession:
    """The session that an operator's request came with."""

    id: UUID
    presented: SessionId = field(repr=False)

    @property
    def csrf(self) -> str:
        """The token that the page sends with every change."""
        return self.presented.csrf


@dataclass(eq=False, slots=True)
class HeldByOperator(UnderWay):
    """A running request of an operator, by their key or by a session that rests on it."""

    operator: Operator
    session: UUID | None

    @property
    def id(self) -> UUID:
        """The id that PostgreSQL looks up."""
        return self.session or self.operator.id


class OperatorRights(Holding[HeldByOperator]):
    """The running requests of operators; each ends with the session or key that it came with."""

    LOOKING: ClassVar[str] = "looking at operators' rights"

    @contextmanager
    def hold(self, operator: Operator, session: UUID | None) -> Iterator[HeldByOperator]:
        """Track a request inside the context. Raises RightEnded and RightUnconfirmed."""
        with self._holding(HeldByOperator(operator, session)) as held:
            yield held

    async def _still_standing(
        self, tx: Transaction, held: Collection[HeldByOperator]
    ) -> Collection[HeldByOperator]:
        found = await operators.standing(
            tx,
            keys={each.id for each in held if each.session is None},
            sessions={each.id for each in held if each.session is not None},
            idle=self._idle,
        )
        return {each for each in held if each.id in found}


async def begin(
    database: Database,
    operator: Operator,
    lifetime: Lifetime,
    origin: Origin,
    *,
    earlier: SessionId | None,
) -> SessionId:
    """Begin a session for whoever has shown an operator's key, and end the browser's `earlier` one.

    The deployment's log records it.
    """
    made = sessions.generate()
    new = NewOperatorSession(new_id(), operator.id, made.hash)
    async with database.tenant(PLATFORM_TENANT) as tx:
        if earlier is not None:
            await operators.end_session(tx, earlier.hash)
        await operators.insert_session(tx, new, lifetime.absolute)
        event = By(operator.actor, origin).did(
            Action.LOGIN, "operator", str(operator.id), {"session": str(new.id)}
        )
        audit.append(tx, PLATFORM_TENANT, event)
    return made


async def find(
    database: Database, presented: SessionId, lifetime: Lifetime, *, attended: bool
) -> tuple[Operator, OperatorSession] | None:
    """Return who acts in the session of that id, or None if it is over or there is none.

    Unless the request is `attended`, it is no use of the session, which ends as if nobody had
    asked.
    """
    async with database.no_tenant() as tx:
        found = await operators.find_session(tx, presented.hash, lifetime.idle)
        if found is not None and found.unused and attended:
            await operators.used_session(tx, found.session_id)
            await operators.used(tx, found.operator_id)
    if found is None:
        return None
    operator = Operator(id=found.operator_id, prefix=found.prefix)
    return operator, OperatorSession(found.session_id, presented)


async def end(
    database: Database, operator: Operator, session: OperatorSession, origin: Origin
) -> None:
    """End a session at once. The deployment's log records it."""
    async with database.tenant(PLATFORM_TENANT) as tx:
        await operators.end_session(tx, session.presented.hash)
        event = By(operator.actor, origin).did(
            Action.LOGOUT, "operator", str(operator.id), {"session": str(session.id)}
        )
        audit.append(tx, PLATFORM_TENANT, event)


async def sessions_of(
    database: Database, operator: Operator, lifetime: Lifetime
) -> list[StoredOperatorSession]:
    """Return the open sessions that rest on an operator's key, newest first."""
    async with database.no_tenant() as tx:
        return await operators.sessions(tx, operator.id, lifetime.idle)


async def end_one(
    database: Database, operator: Operator, session_id: UUID, lifetime: Lifetime, origin: Origin
) -> None:
    """End one of an operator's sessions. Raises NotFound. The deployment's log records it."""
    async with database.tenant(PLATFORM_TENANT) as tx:
        if not await operators.end_one_session(tx, operator.id, session_id, lifetime.idle):
            raise NotFound(NO_SESSION)
        event = By(operator.actor, origin).did(
            Action.SESSION_END, "operator", str(operator.id), {"session": str(session_id)}
        )
        audit.append(tx, PLATFORM_TENANT, event)
