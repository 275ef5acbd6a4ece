"""The first tenant and its first key: made by the operator with the schema owner's login."""

from dataclasses import dataclass
from uuid import UUID

from runner.audit import events as audit
from runner.auth import keys
from runner.ids import new_id
from runner.models import Isolation, Limits, Role
from runner.store import tenants
from runner.store.db import Database
from runner.store.tenants import Tenant


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; `token` is shown this once and stored nowhere."""

    tenant_id: UUID
    token: str


async def create_key(
    owner: Database,
    *,
    tenant: str,
    role: Role,
    name: str,
    max_limits: Limits,
    max_concurrency: int = 8,
    required_isolation: Isolation | None = None,
) -> NewKey:
    """Make a key for the tenant of that name, and the tenant if there is none yet."""
    async with owner.no_tenant() as tx:
        existing = await tenants.find(tx, tenant)
    tenant_id = existing or new_id()
    generated = keys.generate()
    key_id = new_id()
    async with owner.tenant(tenant_id) as tx:
        if existing is None:
            await tenants.insert(
                tx,
                Tenant(
                    id=tenant_id,
                    name=tenant,
                    max_concurrency=max_concurrency,
                    max_limits=max_limits,
                    required_isolation=required_isolation,
                ),
            )
            await audit.append(
                tx,
                tenant_id,
                audit.AuditEvent(
                    actor="system:operator",
                    action=audit.Action.TENANT_CREATE,
                    outcome=audit.Outcome.SUCCESS,
                    resource_type="tenant",
                    resource_id=str(tenant_id),
                    metadata={"name": tenant},
                ),
            )
        await tenants.insert_key(
            tx,
            key_id=key_id,
            prefix=generated.prefix,
            hash_=generated.hash,
            role=role,
            name=name,
        )
        await audit.append(
            tx,
            tenant_id,
            audit.AuditEvent(
                actor="system:operator",
                action=audit.Action.KEY_CREATE,
                outcome=audit.Outcome.SUCCESS,
                resource_type="api_key",
                resource_id=str(key_id),
                metadata={"prefix": generated.prefix, "role": role.value, "name": name},
            ),
        )
    return NewKey(tenant_id=tenant_id, token=generated.token)
