"""The caller and its address: use cases get them, and the audit log records them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from runner.audit import events as audit
from runner.audit.events import Action, AuditEvent, Origin, Outcome
from runner.store.transaction import Transaction
from runner.words.execution import JSON
from runner.words.principal import Principal
from runner.words.trace import TracePlace

SYSTEM = "system:operator"
"""The actor of commands, which do not know the operator's name."""


@dataclass(frozen=True, slots=True)
class By:
    """An actor, as audit records name it, and where it acts from; by default, a command."""

    actor: str = SYSTEM
    origin: Origin = field(default_factory=Origin)

    def did(
        self,
        action: Action,
        resource_type: str,
        resource_id: str | None = None,
        metadata: Mapping[str, JSON] | None = None,
        *,
        outcome: Outcome = Outcome.SUCCESS,
    ) -> AuditEvent:
        """Return the event for what the actor did to a resource."""
        return AuditEvent(
            actor=self.actor,
            action=action,
            outcome=outcome,
            resource_type=resource_type,
            resource_id=resource_id,
            origin=self.origin,
            metadata=metadata or {},
        )


@dataclass(frozen=True, slots=True)
class TenantActor:
    """Somebody who acts in a tenant: a caller, or a node on its own."""

    tenant_id: UUID
    by: By

    def record(
        self,
        tx: Transaction,
        action: Action,
        resource_type: str,
        resource_id: str | None = None,
        metadata: Mapping[str, JSON] | None = None,
        *,
        outcome: Outcome = Outcome.SUCCESS,
    ) -> None:
        """Record in the tenant's log what the actor did to a resource."""
        event = self.by.did(action, resource_type, resource_id, metadata, outcome=outcome)
        audit.append(tx, self.tenant_id, event)


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal that calls, and where its request came from."""

    principal: Principal
    origin: Origin
    trace: TracePlace | None = None
    """The place in a trace of its request, which the work for it continues."""

    @property
    def tenant_id(self) -> UUID:
        """The tenant in which it acts."""
        return self.principal.tenant_id

    @property
    def actor(self) -> str:
        """Its name in audit events."""
        return self.principal.actor

    @property
    def by(self) -> By:
        """The same as an actor for audit events."""
        return By(self.actor, self.origin)

    @property
    def acting(self) -> TenantActor:
        """The same without its rights: what was permitted is done on its behalf."""
        return TenantActor(self.tenant_id, self.by)

    def record(
        self,
        tx: Transaction,
        action: Action,
        resource_type: str,
        resource_id: str | None = None,
        metadata: Mapping[str, JSON] | None = None,
        *,
        outcome: Outcome = Outcome.SUCCESS,
    ) -> None:
        """Record in the tenant's log what the caller did to a resource."""
        self.acting.record(tx, action, resource_type, resource_id, metadata, outcome=outcome)
