"""Audit events: who did what to which resource, from where, with which outcome."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import rfc8785
from psycopg.rows import DictRow

from runner.store.db import Database
from runner.store.transaction import Transaction
from runner.words.execution import JSON
from runner.words.ids import PLATFORM_TENANT, new_id


class Action(StrEnum):
    """The action of a record, as `resource:action`."""

    EXECUTION_SUBMIT = "execution:submit"
    EXECUTION_START = "execution:start"
    EXECUTION_END = "execution:end"
    EXECUTION_CANCEL = "execution:cancel"
    EXECUTION_REQUEUE = "execution:requeue"
    EXECUTION_LATE_RESULT = "execution:late_result"
    AUTHENTICATE = "authentication:verify"
    LOGIN = "authentication:login"
    LOGOUT = "authentication:logout"
    ACCESS_DENIED = "access:denied"
    TENANT_CREATE = "tenant:create"
    TENANT_UPDATE = "tenant:update"
    TENANT_SUSPEND = "tenant:suspend"
    TENANT_RESUME = "tenant:resume"
    TENANT_DELETE = "tenant:delete"
    OPERATOR_CREATE = "operator:create"
    OPERATOR_REVOKE = "operator:revoke"
    NODE_INVITE = "node:invite"
    NODE_UNINVITE = "node:uninvite"
    NODE_CERTIFY = "node:certify"
    NODE_JOIN = "node:join"
    NODE_DRAIN = "node:drain"
    NODE_RESUME = "node:resume"
    NODE_REMOVE = "node:remove"
    KEY_CREATE = "api_key:create"
    KEY_ROTATE = "api_key:rotate"
    KEY_REVOKE = "api_key:revoke"
    MEMBER_INVITE = "member:invite"
    MEMBER_JOIN = "member:join"
    MEMBER_UPDATE = "member:update"
    MEMBER_REMOVE = "member:remove"
    MEMBER_LINK = "member:link"
    MEMBER_UNLINK = "member:unlink"
    PASSWORD_UPDATE = "password:update"  # noqa: S105 - an action's name, as the next one
    PASSWORD_RESET = "password:reset"  # noqa: S105
    SESSION_END = "session:end"
    PROJECT_CREATE = "project:create"
    PROJECT_UPDATE = "project:update"
    PROJECT_DELETE = "project:delete"
    AUDIT_EXPORT = "audit:export"
    AUDIT_WEBHOOK_UPDATE = "audit_webhook:update"
    AUDIT_WEBHOOK_DELETE = "audit_webhook:delete"
    EGRESS_CONNECT = "egress:connect"
    EGRESS_POLICY_UPDATE = "egress_policy:update"
    EGRESS_POLICY_DELETE = "egress_policy:delete"
    FILE_READ = "file:read"
    FILE_WRITE = "file:write"
    FILE_DELETE = "file:delete"
    RETENTION_REMOVE = "retention:remove"
    SANDBOX_CREATE = "sandbox:create"
    SANDBOX_START = "sandbox:start"
    SANDBOX_UPDATE = "sandbox:update"
    SANDBOX_PAUSE = "sandbox:pause"
    SANDBOX_RESUME = "sandbox:resume"
    SANDBOX_KILL = "sandbox:kill"
    SANDBOX_END = "sandbox:end"
    SANDBOX_PROCESSES = "sandbox:processes"
    SANDBOX_CONTEXTS = "sandbox:contexts"
    SANDBOX_FILES = "sandbox:files"
    SANDBOX_ADDRESS_SIGN = "sandbox:address_sign"
    SANDBOX_ADDRESS_USE = "sandbox:address_use"
    SANDBOX_PORTS = "sandbox:ports"
    SANDBOX_CONNECTIONS = "sandbox:connections"
    SANDBOX_FORK = "sandbox:fork"
    SECRET_CREATE = "secret:create"  # noqa: S105 - an action's name, as the next ones
    SECRET_UPDATE = "secret:update"  # noqa: S105
    SECRET_DELETE = "secret:delete"  # noqa: S105
    SECRET_USE = "secret:use"  # noqa: S105
    SNAPSHOT_CREATE = "snapshot:create"
    SNAPSHOT_DELETE = "snapshot:delete"
    SNAPSHOT_RESTORE = "snapshot:restore"
    TEMPLATE_BUILD = "template:build"
    TEMPLATE_DELETE = "template:delete"
    TEMPLATE_END = "template:end"
    TEMPLATE_PUBLISH = "template:publish"
    TEMPLATE_TAG = "template:tag"
    TEMPLATE_UNPUBLISH = "template:unpublish"
    TEMPLATE_UNTAG = "template:untag"
    QUEUE_JOB = "queue_job:run"
    RECEIPT_READ = "receipt:read"


class Outcome(StrEnum):
    """The result of an action."""

    SUCCESS = "success"
    FAILURE = "failure"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a request."""

    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One record. `metadata` holds facts, never a secret and never the program's code."""

    actor: str
    action: Action
    outcome: Outcome
    resource_type: str | None = None
    resource_id: str | None = None
    origin: Origin = Origin()
    metadata: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Filter:
    """A selection of records; None permits any. Times are compared as ISO 8601 text in UTC."""

    action: str | None = None
    actor: str | None = None
    outcome: str | None = None
    resource_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def values(self) -> dict[str, str | None]:
        """Return the values that the queries compare with."""
        return {
            "action": self.action,
            "actor": self.actor,
            "outcome": self.outcome,
            "resource_id": self.resource_id,
            "since": timestamp(self.since) if self.since else None,
            "until": timestamp(self.until) if self.until else None,
        }


@dataclass(frozen=True, slots=True)
class Listed:
    """A stored record with its place in the chain."""

    seq: int
    body: str
    hash: bytes


def timestamp(moment: datetime) -> str:
    """Return a time as fixed-width ISO 8601 in UTC, which sorts as text."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def canonical(tenant_id: UUID, event: AuditEvent, *, event_id: UUID, at: datetime) -> str:
    """Return the record as canonical JSON (RFC 8785), in which equal records have equal text."""
    record: dict[str, Any] = {
        "id": str(event_id),
        "tenant": str(tenant_id),
        "at": timestamp(at),
        "actor": event.actor,
        "action": event.action.value,
        "outcome": event.outcome.value,
        "resource_type": event.resource_type,
        "resource_id": event.resource_id,
        **asdict(event.origin),
        "metadata": dict(event.metadata),
    }
    return rfc8785.dumps(record).decode()


@dataclass(frozen=True, slots=True)
class Place:
    """A record's place in the chain: its number, and the hash of the chain up to it."""

    seq: int
    hash: bytes


def append(tx: Transaction, tenant_id: UUID, event: AuditEvent) -> None:
    """Append a record to the tenant's chain when the caller's transaction ends."""
    tx.append_record(body(tenant_id, event))


async def append_now(tx: Transaction, tenant_id: UUID, event: AuditEvent) -> Place:
    """Append a record at once and return its place, so that something can refer to it."""
    return Place(**await tx.append_record_now(body(tenant_id, event)))


def body(tenant_id: UUID, event: AuditEvent) -> str:
    """Return the event as a record of the tenant's chain, made now."""
    return canonical(tenant_id, event, event_id=new_id(), at=datetime.now(UTC))


async def append_platform(database: Database, event: AuditEvent) -> None:
    """Append a record that belongs to no tenant to the deployment's own chain."""
    async with database.tenant(PLATFORM_TENANT) as tx:
        append(tx, PLATFORM_TENANT, event)


async def list_after(tx: Transaction, after: int, wanted: Filter, limit: int) -> list[Listed]:
    """Return the records that follow number `after` and match, oldest first."""
    rows = await tx.all("audit.list", after=after, limit=limit, **wanted.values())
    return [Listed(**row) for row in rows]


async def list_of(
    tx: Transaction, kind: str, resource_id: str, after: int, limit: int
) -> list[Listed]:
    """Return the records of one resource that follow number `after`, oldest first."""
    rows = await tx.all(
        "audit.of_resource",
        resource_type=kind,
        resource_id=resource_id,
        after=after,
        limit=limit,
    )
    return [Listed(**row) for row in rows]


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest records of a resource, oldest first, and how many older ones are left out."""

    records: Sequence[Listed]
    omitted: int


async def newest_of(
    tx: Transaction, kind: str, resource_id: str, actions: Sequence[Action], limit: int
) -> Newest:
    """Return the newest `limit` records of these actions on one resource."""
    rows = await tx.all(
        "audit.newest_of_resource",
        resource_type=kind,
        resource_id=resource_id,
        actions=list(actions),
        limit=limit,
    )
    return _newest(rows)


LIFE = frozenset(
    {Action.SANDBOX_KILL, Action.SANDBOX_PAUSE, Action.SANDBOX_RESUME, Action.SANDBOX_START}
)
"""Actions on a sandbox's own life, beside which there may be millions of what was done in it."""


async def newest_of_life(tx: Transaction, sandbox_id: UUID, limit: int) -> Newest:
    """Return the newest `limit` records of a sandbox's own life."""
    return _newest(await tx.all("audit.newest_of_life", resource_id=str(sandbox_id), limit=limit))


def _newest(rows: Sequence[DictRow]) -> Newest:
    omitted = rows[0]["total"] - len(rows) if rows else 0
    records = [Listed(row["seq"], row["body"], row["hash"]) for row in reversed(rows)]
    return Newest(records, omitted)


async def list_before(tx: Transaction, before: int, wanted: Filter, limit: int) -> list[Listed]:
    """Return the records that precede number `before` and match, newest first."""
    rows = await tx.all("audit.list_newest", before=before, limit=limit, **wanted.values())
    return [Listed(**row) for row in rows]
