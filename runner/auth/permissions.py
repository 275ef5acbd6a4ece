"""What each role may do: one table on one screen."""

from enum import StrEnum

from runner.words.principal import Principal, Role


class Permission(StrEnum):
    """What a route needs, as `resource:action`."""

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
    SECRET_READ = "secret:read"  # noqa: S105 - a permission's name; names only, never values
    SECRET_WRITE = "secret:write"  # noqa: S105 - a permission's name
    USAGE_READ = "usage:read"

    @property
    def only_reads(self) -> bool:
        """Whether it changes nothing of the tenant's: a suspended one keeps these.

        A password and sessions are their user's own, whatever became of the tenant.
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
    Permission.SECRET_READ: _ADMINS,
    Permission.SECRET_WRITE: _ADMINS,
    # Sums of what everybody reads execution by execution; who is refused shall see what is left.
    Permission.USAGE_READ: _EVERYBODY,
}


def of_role(role: Role) -> frozenset[Permission]:
    """Return what a role may do."""
    return frozenset(permission for permission, roles in ALLOWED.items() if role in roles)


def may(principal: Principal, permission: Permission) -> bool:
    """Return whether the principal has the permission: its role has, and itself was not denied."""
    own = principal.permissions
    return principal.role in ALLOWED[permission] and (own is None or permission in own)


def stopped(principal: Principal, permission: Permission) -> bool:
    """Return whether the suspension of its tenant takes the permission from the principal."""
    return principal.suspended and not permission.only_reads
