"""Who calls, and from where: what a use case is given, and what the audit log says of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from runner.audit import events as audit
from runner.audit.events import Action, AuditEvent, Origin, Outcome
from runner.store.transaction import Transaction
from runner.words.execution import JSON
from runner.words.principal import Principal

SYSTEM = "system:operator"
"""The actor of commands, which know no operator by name."""


@dataclass(frozen=True, slots=True)
class By:
    """An actor, as audit records name it, and where it acts from. By default a command's."""

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
        """Return the event of what it did to a resource."""
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
class Caller:
    """A principal that calls, and where its request came from."""

    principal: Principal
    origin: Origin

    @property
    def tenant_id(self) -> UUID:
        """The tenant that it acts in."""
        return self.principal.tenant_id

    @property
    def actor(self) -> str:
        """The name it has in audit events."""
        return self.principal.actor

    @property
    def by(self) -> By:
        """What audit events say of it."""
        return By(self.actor, self.origin)

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
        """Put on record, in its tenant's log, what it did to a resource."""
        event = self.by.did(action, resource_type, resource_id, metadata, outcome=outcome)
        audit.append(tx, self.tenant_id, event)
