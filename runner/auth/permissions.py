"""What each role may do: one table on one screen."""

from enum import StrEnum

from runner.models import Role


class Permission(StrEnum):
    """What a route needs, as `resource:action`."""

    ARTIFACT_READ = "artifact:read"
    AUDIT_READ = "audit:read"
    EGRESS_POLICY_READ = "egress_policy:read"
    EGRESS_POLICY_WRITE = "egress_policy:write"
    EXECUTION_CANCEL = "execution:cancel"
    EXECUTION_CREATE = "execution:create"
    EXECUTION_READ = "execution:read"
    SECRET_READ = "secret:read"  # noqa: S105 - a permission's name; names only, never values
    SECRET_WRITE = "secret:write"  # noqa: S105 - a permission's name


_ADMINS = frozenset({Role.OWNER, Role.ADMIN})
_MAKERS = _ADMINS | {Role.DEVELOPER}
_EVERYBODY = frozenset(Role)

ALLOWED: dict[Permission, frozenset[Role]] = {
    Permission.ARTIFACT_READ: _EVERYBODY,
    Permission.AUDIT_READ: _ADMINS,
    Permission.EGRESS_POLICY_READ: _EVERYBODY,
    Permission.EGRESS_POLICY_WRITE: _ADMINS,
    Permission.EXECUTION_CANCEL: _MAKERS,
    Permission.EXECUTION_CREATE: _MAKERS,
    Permission.EXECUTION_READ: _EVERYBODY,
    Permission.SECRET_READ: _ADMINS,
    Permission.SECRET_WRITE: _ADMINS,
}


def may(role: Role, permission: Permission) -> bool:
    """Return whether a principal of this role has the permission."""
    return role in ALLOWED[permission]
