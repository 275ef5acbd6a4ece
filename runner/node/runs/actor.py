"""The user of a sandbox: an execution, or the sandbox itself if it lives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from runner.audit.events import Action, AuditEvent, Outcome
from runner.words.execution import JSON, Claim


@dataclass(frozen=True, slots=True)
class SandboxUser:
    """An execution or a living sandbox, as audit records name it."""

    tenant_id: UUID
    kind: Literal["execution", "sandbox"]
    id: UUID
    facts: Mapping[str, JSON] = field(default_factory=dict)
    """Distinguishes several uses with the same id."""

    @classmethod
    def of(cls, claim: Claim) -> "SandboxUser":
        """Return the user for an attempt of an execution."""
        return cls(claim.tenant_id, "execution", claim.execution_id, {"attempt": claim.attempt})

    def did(
        self,
        action: Action,
        metadata: Mapping[str, JSON],
        *,
        outcome: Outcome = Outcome.SUCCESS,
        resource: tuple[str, str] | None = None,
    ) -> AuditEvent:
        """Return the audit event of an action, on this user itself unless a resource is named."""
        kind, name = resource or (self.kind, str(self.id))
        return AuditEvent(
            actor=f"{self.kind}:{self.id}",
            action=action,
            outcome=outcome,
            resource_type=kind,
            resource_id=name,
            metadata={**self.facts, **metadata},
        )
