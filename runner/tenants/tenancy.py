"""The operator's use cases of tenants: to create, change, suspend and delete them.

Each of these is recorded in the tenant's log, and a deletion in the platform's log.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from uuid import UUID

from runner.audit import events as audit
from runner.audit.events import Action
from runner.auth import keys
from runner.auth.caller import By
from runner.auth.keys import Holder
from runner.quotas.tiers import Quotas
from runner.store import keys as stored_keys
from runner.store import operators, quotas, tenants
from runner.store.db import Database
from runner.store.keys import Grant
from runner.store.objects import ObjectStore
from runner.store.tenants import Tenant, Terms
from runner.store.transaction import Transaction
from runner.words.errors import Conflict, NotFound
from runner.words.ids import new_id
from runner.words.principal import Role, Tier
from runner.words.resources import Limits
from runner.words.sandbox import Isolation

NO_TENANT = "no such tenant"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key. Show `token` now: it is stored nowhere."""

    tenant_id: UUID
    key_id: UUID
    token: str = field(repr=False)
    of_new_tenant: bool = False
    """Whether the tenant was made with it."""


@dataclass(frozen=True, slots=True)
class Removed:
    """The result of a deletion: removed rows by table, stored objects, and the log's last hash."""

    rows: Mapping[str, int]
    objects: int
    audit_records: int
    audit_head: str | None


async def create_key(
    owner: Database,
    *,
    tenant: str,
    role: Role,
    name: str,
    max_limits: Limits,
    tier: Tier = Tier.FREE,
    max_concurrency: int | None = None,
    required_isolation: Isolation | None = None,
    reuse: bool = False,
) -> NewKey:
    """Make a key for the tenant with that name, and the tenant if it is new.

    Needs the schema owner's login; for the first key of a deployment.
    """
    async with owner.no_tenant() as tx:
        tenant_id = await tenants.find(tx, tenant)
    if tenant_id is None:
        terms = Terms(tier, max_concurrency, max_limits, required_isolation, reuse=reuse)
        made = await create(owner, tenant, terms, By(), role=role, key_name=name)
        return replace(made, of_new_tenant=True)
    async with owner.tenant(tenant_id) as tx:
        return await _make_key(tx, tenant_id, role, name, By())


async def create(
    database: Database,
    name: str,
    terms: Terms,
    by: By,
    *,
    role: Role = Role.OWNER,
    key_name: str = "first key",
) -> NewKey:
    """Make a tenant and its first key. Raises Conflict if the name is taken."""
    tenant_id = new_id()
    async with database.tenant(tenant_id) as tx:
        if not await tenants.insert(tx, tenant_id, name, terms):
            raise Conflict(f"a tenant {name!r} already exists")
        details = {"name": name, **_shown(terms)}
        _audit(tx, tenant_id, Action.TENANT_CREATE, by, details)
        return await _make_key(tx, tenant_id, role, key_name, by)


async def mint_key(database: Database, tenant_id: UUID, role: Role, name: str, by: By) -> NewKey:
    """Make a key for a tenant that has lost its own. Raises NotFound."""
    async with database.tenant(tenant_id) as tx:
        await _get(tx)
        return await _make_key(tx, tenant_id, role, name, by)


async def change(database: Database, tenant_id: UUID, terms: Terms, by: By) -> Tenant:
    """Change a tenant's terms; what runs already keeps its own. Raises NotFound."""
    async with database.tenant(tenant_id) as tx:
        before = await _get(tx)
        await tenants.update(tx, terms)
        old, new = _shown(before.terms), _shown(terms)
        changed = {key: {"from": old[key], "to": new[key]} for key in new if old[key] != new[key]}
        _audit(tx, tenant_id, Action.TENANT_UPDATE, by, changed)
        return await _get(tx)


async def suspend(database: Database, tenant_id: UUID, why: str, by: By) -> Tenant:
    """Suspend a tenant: it can start nothing, and workers end what waits or runs.

    It can still read. Raises NotFound, and Conflict if it is suspended already.
    """
    async with database.tenant(tenant_id) as tx:
        await _get(tx)
        if not await tenants.suspend(tx, why):
            raise Conflict("this tenant is already suspended")
        _audit(tx, tenant_id, Action.TENANT_SUSPEND, by, {"why": why})
        return await _get(tx)


async def resume(database: Database, tenant_id: UUID, by: By) -> Tenant:
    """End a suspension. Raises NotFound, and Conflict if the tenant is not suspended."""
    async with database.tenant(tenant_id) as tx:
        await _get(tx)
        if not await tenants.resume(tx):
            raise Conflict("this tenant is not suspended")
        _audit(tx, tenant_id, Action.TENANT_RESUME, by, {})
        return await _get(tx)


async def delete(database: Database, objects: ObjectStore, tenant_id: UUID, by: By) -> Removed:
    """Remove everything of a suspended tenant that runs nothing; return what was removed.

    Its audit log goes, too. The platform's log keeps the length and last hash, so that a copy can
    still be checked. You may repeat this after a failure. Raises NotFound and Conflict.
    """
    async with database.tenant(tenant_id) as tx:
        tenant = await _get(tx)
        if tenant.suspended_at is None:
            raise Conflict("suspend this tenant before you delete it")
        if running := await tenants.active(tx):
            raise Conflict(
                "executions and sandboxes of this tenant are still ending "
                f"({running} now); try again in a moment"
            )
        # Once no template is everybody's, nobody else begins to build on one.
        public, below_others = await tenants.shared(tx)
        if public:
            raise Conflict(
                f"{public} templates of this tenant are everybody's: take them back first "
                "(`runner templates public` lists them)"
            )
        if below_others:
            raise Conflict(
                f"{below_others} templates of other tenants are built on this tenant's templates: "
                "they must be deleted first"
            )
    # Remove objects before rows: after a crash, the rows still say whose the remaining objects are.
    await _audit_platform(database, Action.TENANT_DELETE, tenant, by, {"phase": "begun"})
    gone = await objects.remove_tenant(tenant_id)
    async with database.tenant(tenant_id) as tx:
        head = await tenants.head(tx)
        rows = await tenants.erase(tx)
        # Nothing new can be reserved now. An upload may have written meanwhile: remove that or keep
        # rows.
        gone += await objects.remove_tenant(tenant_id)
    removed = Removed(
        rows={name: count for name, count in rows.items() if count},
        objects=gone,
        audit_records=head.seq if head else 0,
        audit_head=head.hash.hex() if head else None,
    )
    done = {"phase": "done", **asdict(removed)}
    await _audit_platform(database, Action.TENANT_DELETE, tenant, by, done)
    return removed


async def get(database: Database, tenant_id: UUID) -> Tenant:
    """Return a tenant. Raises NotFound."""
    async with database.tenant(tenant_id) as tx:
        return await _get(tx)


async def list_by_name(
    database: Database, *, after: str | None, limit: int, part: str | None = None
) -> list[Tenant]:
    """Return tenants by name: those that follow `after`, and have `part` in their name."""
    async with database.no_tenant() as tx:
        return await tenants.list_by_name(tx, after=after, limit=limit, part=part)


async def publish_tiers(owner: Database, tiers: Mapping[Tier, Quotas]) -> None:
    """Publish the quotas of the tiers; they hold at once. Needs the schema owner's login."""
    async with owner.no_tenant() as tx:
        await quotas.publish(tx, tiers)


async def create_operator(owner: Database, name: str, expires_at: datetime | None) -> str:
    """Make an operator's key and return it, to be shown once. Needs the schema owner's login."""
    made = keys.generate(Holder.OPERATOR)
    id_ = new_id()
    async with owner.no_tenant() as tx:
        await operators.insert(
            tx, id_, name=name, prefix=made.prefix, hash_=made.hash, expires_at=expires_at
        )
    await audit.append_platform(
        owner, By().did(Action.OPERATOR_CREATE, "operator", str(id_), {"prefix": made.prefix})
    )
    return made.token


async def revoke_operator(owner: Database, prefix: str) -> None:
    """End an operator's key at once. Raises NotFound."""
    async with owner.no_tenant() as tx:
        if not await operators.revoke(tx, prefix):
            raise NotFound(f"no usable operator's key begins with ro_{prefix}")
    await audit.append_platform(
        owner, By().did(Action.OPERATOR_REVOKE, "operator", metadata={"prefix": prefix})
    )


async def _get(tx: Transaction) -> Tenant:
    tenant = await tenants.get(tx)
    if tenant is None:
        raise NotFound(NO_TENANT)
    return tenant


async def _make_key(tx: Transaction, tenant_id: UUID, role: Role, name: str, by: By) -> NewKey:
    made = keys.generate()
    key_id = new_id()
    await stored_keys.insert(
        tx,
        key_id=key_id,
        prefix=made.prefix,
        hash_=made.hash,
        name=name,
        grant=Grant(role),
        created_by=by.actor,
    )
    details = {"prefix": made.prefix, "role": role.value, "name": name}
    event = by.did(Action.KEY_CREATE, "api_key", str(key_id), details)
    audit.append(tx, tenant_id, event)
    return NewKey(tenant_id, key_id, made.token)


def _audit(
    tx: Transaction, tenant_id: UUID, action: Action, by: By, metadata: Mapping[str, object]
) -> None:
    audit.append(tx, tenant_id, by.did(action, "tenant", str(tenant_id), metadata))


async def _audit_platform(
    database: Database, action: Action, tenant: Tenant, by: By, metadata: Mapping[str, object]
) -> None:
    event = by.did(action, "tenant", str(tenant.id), {"name": tenant.name, **metadata})
    await audit.append_platform(database, event)


def _shown(terms: Terms) -> dict[str, object]:
    return {
        "tier": terms.tier.value,
        "max_concurrency": terms.max_concurrency,
        "max_limits": asdict(terms.max_limits),
        "required_isolation": terms.required_isolation and terms.required_isolation.value,
        "egress_ceiling": None if terms.egress_ceiling is None else list(terms.egress_ceiling),
        "retention_days": terms.retention_days,
        "quotas": dict(terms.quotas),
        "reuse": terms.reuse,
    }
