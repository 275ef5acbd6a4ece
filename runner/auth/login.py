"""Logging in and out, accepting invitations, changing passwords: counted, audited, one answer.

A refusal has the same words and takes the same work, whether the account does not exist, belongs to
no such tenant, or has another password. The log says which it was.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from runner.audit import events as audit
from runner.audit.events import Action, Origin, Outcome
from runner.auth import sessions
from runner.auth.caller import By, Caller
from runner.auth.passwords import Passwords
from runner.auth.sessions import Lifetime, Session, SessionId
from runner.auth.throttle import Throttle
from runner.auth.tokens import digest
from runner.store import members, tenants, users
from runner.store.db import Database
from runner.store.transaction import Transaction
from runner.store.users import (
    Account,
    Credentials,
    FoundIdentity,
    Membership,
    NewSession,
    OpenInvitation,
    Reset,
    StoredSession,
)
from runner.words.errors import Conflict, Invalid, NotAuthenticated, NotFound, TooManyAttempts
from runner.words.ids import PLATFORM_TENANT, new_id

WRONG = "address, password or tenant is wrong"
WRONG_TOKEN = "the token is not valid, or the password is not that of this address"  # noqa: S105
WRONG_PASSWORD = "that is not your password"  # noqa: S105 - an answer
NO_SESSION = "no such session"
UNKNOWN = "user:unknown"


@dataclass(frozen=True, slots=True)
class Known:
    """The caller, as far as that is no secret."""

    tenant: str
    email: str | None = None
    memberships: Sequence[Membership] = ()


@dataclass(frozen=True, slots=True)
class Logins:
    """The parts that logging people in and out takes."""

    database: Database
    passwords: Passwords
    throttle: Throttle
    lifetime: Lifetime

    async def log_in(
        self, email: str, password: str, tenant: str | None, origin: Origin
    ) -> SessionId:
        """Return a new session's id. Raises NotAuthenticated, with the same words for all.

        Raises TooManyAttempts, and QueueUnavailable if attempts cannot be counted.
        """
        await self.count(origin, email)
        async with self.database.no_tenant() as tx:
            account = await users.find_login(tx, email, tenant)
        if account is None:
            await self.passwords.verify(password, None)
            await self._refused(Action.LOGIN, PLATFORM_TENANT, By(_nobody(email), origin))
            raise NotAuthenticated(WRONG)
        if not await self.passwords.verify(password, account.password):
            by = By(f"user:{account.user_id}", origin)
            await self._refused(Action.LOGIN, account.tenant_id, by)
            raise NotAuthenticated(WRONG)
        await self.throttle.succeeded(origin.ip, email)
        if self.passwords.outdated(account.password):
            anew = await self.passwords.hash(password)
            async with self.database.tenant(account.tenant_id) as tx:
                if await users.replace_password(
                    tx, account.user_id, old=account.password, new=anew
                ):
                    account = replace(account, password=anew)
        async with self.database.tenant(account.tenant_id) as tx:
            # Since it was verified, the password may have been changed, or the member removed.
            if not await users.hold_password(tx, account.user_id, account.password):
                raise NotAuthenticated(WRONG)
            return await self._begin(tx, account, origin)

    async def replaced(self, earlier: bytes) -> None:
        """End the session with that hash, with which a browser came that has a new one now."""
        async with self.database.no_tenant() as tx:
            found = await users.find_session(tx, earlier, self.lifetime.idle)
        if found is not None:
            async with self.database.tenant(found.tenant_id) as tx:
                await users.end_sessions(tx, found.user_id, found.session_id)

    async def account(self, caller: Caller, session: Session | None) -> Known:
        """Return the caller's tenant; for users who have logged in, also address and tenants."""
        async with self.database.tenant(caller.tenant_id) as tx:
            tenant = await tenants.get(tx)
            name = tenant.name if tenant else ""
            if session is None:
                return Known(name)
            known = await users.credentials(tx, session.user_id)
            belongs = await users.memberships(tx, session.user_id)
        return Known(name, known.email if known else None, belongs)

    async def sessions(self, caller: Caller, session: Session) -> Sequence[StoredSession]:
        """Return the caller's open sessions, in all tenants, newest first."""
        async with self.database.tenant(caller.tenant_id) as tx:
            return await users.sessions(tx, session.user_id, self.lifetime.idle)

    async def log_out(self, caller: Caller, session: Session) -> None:
        """End the session at once."""
        async with self.database.tenant(caller.tenant_id) as tx:
            await users.end_sessions(tx, session.user_id, session.id)
            _done(tx, caller.tenant_id, caller.by, Action.LOGOUT, {"session": str(session.id)})

    async def end(self, caller: Caller, session: Session, session_id: UUID) -> None:
        """End one of the caller's sessions, in any tenant. Raises NotFound."""
        async with self.database.tenant(caller.tenant_id) as tx:
            if not await users.end_sessions(tx, session.user_id, session_id):
                raise NotFound(NO_SESSION)
            ended = {"session": str(session_id)}
            _done(tx, caller.tenant_id, caller.by, Action.SESSION_END, ended)

    async def change_password(
        self, caller: Caller, session: Session, current: str, new: str
    ) -> None:
        """Change the caller's password and end all their sessions, this one included.

        Raises Invalid if the new password is too weak or the current one is wrong, and Conflict if
        somebody changed it meanwhile.
        """
        tenant_id, origin = caller.tenant_id, caller.origin
        async with self.database.tenant(tenant_id) as tx:
            known = await users.credentials(tx, session.user_id)
        if known is None:
            raise NotFound(NO_SESSION)
        await self.count(origin, known.email)
        if not await self.passwords.verify(current, known.password):
            await self._refused(Action.PASSWORD_UPDATE, tenant_id, caller.by)
            raise Invalid(WRONG_PASSWORD, "current")
        await self._require_strong(new, known.email, "new")
        await self.throttle.succeeded(origin.ip, known.email)
        stored = await self.passwords.hash(new)
        async with self.database.tenant(tenant_id) as tx:
            if not await users.replace_password(
                tx, session.user_id, old=known.password, new=stored
            ):
                raise Conflict("another request changed the password at the same moment")
            ended = await users.end_sessions(tx, session.user_id)
            facts = {"sessions_ended": ended}
            _done(tx, tenant_id, caller.by, Action.PASSWORD_UPDATE, facts)

    async def accept(self, token: str, password: str, origin: Origin) -> None:
        """Accept an invitation, or replace a forgotten password with the operator's token.

        A person without an account gets one with this password. A person who has one must give its
        password: a token opens a tenant, never somebody's account. Raises NotAuthenticated, Invalid
        if the password is too weak, and what `log_in` raises.
        """
        hash_ = digest(token)
        async with self.database.no_tenant() as tx:
            invitation = await users.find_invitation(tx, hash_)
            reset = None if invitation else await users.find_reset(tx, hash_)
        await self.count(origin, invitation.email if invitation else None)
        if invitation is not None:
            await self._join(invitation, password, origin)
        elif reset is not None:
            await self._reset(reset, hash_, password, origin)
        else:
            await self.passwords.verify(password, None)
            await self._refused(Action.MEMBER_JOIN, PLATFORM_TENANT, By(UNKNOWN, origin))
            raise NotAuthenticated(WRONG_TOKEN)

    async def begin_by_link(self, member: FoundIdentity, origin: Origin) -> SessionId:
        """Return a new session's id for a member whom the identity provider has identified.

        Raises NotAuthenticated if the link or the membership has ended meanwhile.
        """
        async with self.database.tenant(member.tenant_id) as tx:
            return await self._begin(tx, member, origin, member.identity_id)

    async def not_signed_in(self, why: str, origin: Origin, subject: str | None = None) -> None:
        """Record that somebody came back from the identity provider and was not let in."""
        by = By(f"user:oidc:{subject}" if subject else UNKNOWN, origin)
        event = by.did(Action.LOGIN, "user", metadata={"why": why}, outcome=Outcome.FAILURE)
        await audit.append_platform(self.database, event)

    async def _begin(
        self,
        tx: Transaction,
        person: Account | FoundIdentity,
        origin: Origin,
        identity_id: UUID | None = None,
    ) -> SessionId:
        made, user_id = sessions.generate(), person.user_id
        new = NewSession(new_id(), user_id, made.hash, origin.ip, origin.user_agent, identity_id)
        if not await users.insert_session(tx, new, self.lifetime.absolute):
            raise NotAuthenticated(WRONG)
        await users.clear_sessions(tx, user_id, self.lifetime.idle)
        facts = {"session": str(new.id)}
        if identity_id is not None:
            facts["identity"] = str(identity_id)
        _done(tx, person.tenant_id, By(f"user:{user_id}", origin), Action.LOGIN, facts)
        return made

    async def _join(self, invitation: OpenInvitation, password: str, origin: Origin) -> None:
        user_id, tenant_id = invitation.user_id, invitation.tenant_id
        new: Credentials | None = None
        if user_id is None:
            await self._require_strong(password, invitation.email, "password")
            new = Credentials(invitation.email, await self.passwords.hash(password))
        elif not await self.passwords.verify(password, invitation.password):
            await self._refused(Action.MEMBER_JOIN, tenant_id, By(f"user:{user_id}", origin))
            raise NotAuthenticated(WRONG_TOKEN)
        async with self.database.tenant(tenant_id) as tx:
            user_id = user_id or new_id()
            # Take the invitation first, so that nobody is added without one.
            added = new is None or await users.add(tx, user_id, new)
            if not added or not await members.take_back(tx, invitation.invitation_id):
                # Somebody else was first, with the token or with the address: nothing is stored.
                raise NotAuthenticated(WRONG_TOKEN)
            await members.add(tx, user_id, invitation.role, invitation.created_by)
            facts = {
                "invitation": str(invitation.invitation_id),
                "email": invitation.email,
                "role": invitation.role.value,
            }
            _done(tx, tenant_id, By(f"user:{user_id}", origin), Action.MEMBER_JOIN, facts)

    async def _reset(self, reset: Reset, hash_: bytes, password: str, origin: Origin) -> None:
        await self._require_strong(password, reset.email, "password")
        stored = await self.passwords.hash(password)
        async with self.database.tenant(PLATFORM_TENANT) as tx:
            ended = await users.reset_password(tx, hash_, stored)
            if ended is None:
                raise NotAuthenticated(WRONG_TOKEN)
            facts = {"sessions_ended": ended}
            by = By(f"user:{reset.user_id}", origin)
            _done(tx, PLATFORM_TENANT, by, Action.PASSWORD_RESET, facts)

    async def _require_strong(self, password: str, email: str, field: str) -> None:
        if weak := await self.passwords.weakness(password, email=email):
            raise Invalid(weak, field)

    async def count(self, origin: Origin, email: str | None = None) -> None:
        """Count an attempt, at that account if there is one. Raises what `log_in` raises of it."""
        try:
            await self.throttle.attempt(origin.ip, email)
        except TooManyAttempts:
            if await self.throttle.to_be_told(origin.ip):
                by = By(_nobody(email) if email else UNKNOWN, origin)
                event = by.did(
                    Action.LOGIN, "user", metadata={"why": "throttled"}, outcome=Outcome.DENIED
                )
                await audit.append_platform(self.database, event)
            raise

    async def _refused(self, action: Action, tenant_id: UUID, by: By) -> None:
        why = "nobody of that name" if tenant_id == PLATFORM_TENANT else "wrong password"
        event = by.did(action, "user", metadata={"why": why}, outcome=Outcome.FAILURE)
        async with self.database.tenant(tenant_id) as tx:
            audit.append(tx, tenant_id, event)


def _nobody(email: str) -> str:
    """Return a name that shows which attempts were at the same unknown address."""
    return f"user:unknown-{hashlib.sha256(email.encode()).hexdigest()[:12]}"


def _done(
    tx: Transaction, tenant_id: UUID, by: By, action: Action, facts: Mapping[str, object]
) -> None:
    """Record what somebody did with their own account."""
    event = by.did(action, "user", by.actor.removeprefix("user:"), facts)
    audit.append(tx, tenant_id, event)
