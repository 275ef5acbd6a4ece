"""The permissions of each role: one table on one screen."""

from enum import StrEnum

from runner.words.principal import Principal, Role


class Permission(StrEnum):
    """The permission that a route requires, as `resource:action`."""

    ACCOUNT_READ = "account:read"
    ACCOUNT_WRITE = "account:write"
    API_KEY_READ = "api_key:read"
    API_KEY_WRITE = "api_key:write"
    ARTIFACT_READ = "artifact:read"
    AUDIT_EXPORT = "audit:export"
    AUDIT_READ = "audit:read"
    AUDIT_WEBHOOK_READ = "audit_webhook:read"
    AUDIT_WEBHOOK_WRITE = "audit_webhook:write"
    EGRESS_POLICY_READ = "egress_policy:read"
    EGRESS_POLICY_WRITE = "egress_policy:write"
    EXECUTION_CANCEL = "execution:cancel"
    EXECUTION_CREATE = "execution:create"
    EXECUTION_READ = "execution:read"
    FILE_DELETE = "file:delete"
    FILE_READ = "file:read"
    FILE_WRITE = "file:write"
    MEMBER_READ = "member:read"
    MEMBER_WRITE = "member:write"
    PROJECT_DELETE = "project:delete"
    PROJECT_READ = "project:read"
    PROJECT_WRITE = "project:write"
    SANDBOX_CREATE = "sandbox:create"
    SANDBOX_DELETE = "sandbox:delete"
    SANDBOX_READ = "sandbox:read"
    SANDBOX_USE = "sandbox:use"
    SECRET_READ = "secret:read"  # noqa: S105 - a permission's name; names only, never values
    SECRET_WRITE = "secret:write"  # noqa: S105 - a permission's name
    SNAPSHOT_CREATE = "snapshot:create"
    SNAPSHOT_DELETE = "snapshot:delete"
    SNAPSHOT_READ = "snapshot:read"
    TEMPLATE_CREATE = "template:create"
    TEMPLATE_DELETE = "template:delete"
    TEMPLATE_READ = "template:read"
    USAGE_READ = "usage:read"

    @property
    def only_reads(self) -> bool:
        """Whether it changes nothing of the tenant; a suspended tenant keeps these permissions.

        A password and sessions belong to the user and not to a tenant, so they count as well.
        """
        return self.endswith((":read", ":export")) or self is Permission.ACCOUNT_WRITE


_ADMINS = frozenset({Role.OWNER, Role.ADMIN})
_MAKERS = _ADMINS | {Role.DEVELOPER}
_EVERYBODY = frozenset(Role)

ALLOWED: dict[Permission, frozenset[Role]] = {
    Permission.ACCOUNT_READ: _EVERYBODY,
    Permission.ACCOUNT_WRITE: _EVERYBODY,
    Permission.API_KEY_READ: _ADMINS,
    Permission.API_KEY_WRITE: _ADMINS,
    Permission.ARTIFACT_READ: _EVERYBODY,
    Permission.AUDIT_EXPORT: _ADMINS,
    Permission.AUDIT_READ: _ADMINS,
    Permission.AUDIT_WEBHOOK_READ: _ADMINS,
    Permission.AUDIT_WEBHOOK_WRITE: _ADMINS,
    Permission.EGRESS_POLICY_READ: _EVERYBODY,
    Permission.EGRESS_POLICY_WRITE: _ADMINS,
    Permission.EXECUTION_CANCEL: _MAKERS,
    Permission.EXECUTION_CREATE: _MAKERS,
    Permission.EXECUTION_READ: _EVERYBODY,
    Permission.FILE_DELETE: _MAKERS,
    Permission.FILE_READ: _EVERYBODY,
    Permission.FILE_WRITE: _MAKERS,
    Permission.MEMBER_READ: _ADMINS,
    Permission.MEMBER_WRITE: _ADMINS,
    Permission.PROJECT_DELETE: _ADMINS,
    Permission.PROJECT_READ: _EVERYBODY,
    Permission.PROJECT_WRITE: _ADMINS,
    Permission.SANDBOX_CREATE: _MAKERS,
    Permission.SANDBOX_DELETE: _MAKERS,
    Permission.SANDBOX_READ: _EVERYBODY,
    # Whoever runs a program in a sandbox, or reads its files, may see the secrets that are there.
    Permission.SANDBOX_USE: _MAKERS,
    Permission.SECRET_READ: _ADMINS,
    Permission.SECRET_WRITE: _ADMINS,
    Permission.SNAPSHOT_CREATE: _MAKERS,
    Permission.SNAPSHOT_DELETE: _MAKERS,
    Permission.SNAPSHOT_READ: _EVERYBODY,
    Permission.TEMPLATE_CREATE: _MAKERS,
    Permission.TEMPLATE_DELETE: _MAKERS,
    Permission.TEMPLATE_READ: _EVERYBODY,
    # Everybody can read each execution, and therefore the sums as well; a refused caller needs to
    # see what is left.
    Permission.USAGE_READ: _EVERYBODY,
}


def of_role(role: Role) -> frozenset[Permission]:
    """Return the permissions of a role."""
    return frozenset(permission for permission, roles in ALLOWED.items() if role in roles)


def may(principal: Principal, permission: Permission) -> bool:
    """Return whether the principal has the permission: its role gives it, and nothing denies it."""
    own = principal.permissions
    return principal.role in ALLOWED[permission] and (own is None or permission in own)


def stopped(principal: Principal, permission: Permission) -> bool:
    """Return whether the suspension of its tenant takes the permission from the principal."""
    return principal.suspended and not permission.only_reads
