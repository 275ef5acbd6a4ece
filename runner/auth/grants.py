"""Rights that may be passed on: nobody can make or take over a key that can do more than they."""

from datetime import datetime

from runner.auth.permissions import Permission, of_role
from runner.store.keys import Grant, Network
from runner.words.errors import Invalid, NotPermitted
from runner.words.principal import Role

RANK = {role: rank for rank, role in enumerate(Role)}
"""Owner first: a role may pass on itself and those after it."""


def narrowed(maker: Grant, wanted: Grant) -> Grant:
    """Return the grant to give: the wanted one, with the maker's bounds where it has none.

    Raises NotPermitted for a role above the maker's or more than it may, Invalid for a permission
    that the role does not have, or networks or an end beyond the maker's.
    """
    if not outranks(maker.role, wanted.role):
        raise NotPermitted(
            f"the role {maker.role.value} cannot make a key with the role {wanted.role.value}"
        )
    return Grant(
        role=wanted.role,
        permissions=_permissions(maker, wanted),
        networks=_networks(maker.networks, wanted.networks),
        expires_at=_end(maker.expires_at, wanted.expires_at),
    )


def outranks(role: Role, other: Role) -> bool:
    """Return whether a role is equal to the other or above it."""
    return RANK[role] <= RANK[other]


def manages(role: Role, other: Role) -> bool:
    """Return whether a role may give and take the other: an owner any, others only lower ones."""
    return role is Role.OWNER or RANK[role] < RANK[other]


def covers(maker: Grant, other: Grant) -> bool:
    """Return whether the maker can do all that the other grant can, wherever and whenever."""
    return (
        outranks(maker.role, other.role)
        and effective(other) <= effective(maker)
        and (maker.networks is None or _inside(other.networks, maker.networks))
        and (
            maker.expires_at is None
            or (other.expires_at is not None and other.expires_at <= maker.expires_at)
        )
    )


def effective(grant: Grant) -> frozenset[str]:
    """Return the permissions that a grant gives in effect."""
    role = frozenset[str](of_role(grant.role))
    return role if grant.permissions is None else role & grant.permissions


def _permissions(maker: Grant, wanted: Grant) -> frozenset[str] | None:
    if wanted.permissions is None:
        if maker.permissions is None:
            return None
        return effective(wanted) & effective(maker)
    if beyond := wanted.permissions - of_role(wanted.role):
        raise Invalid(f"the role {wanted.role.value} lacks {min(beyond)}", "permissions")
    if beyond := wanted.permissions - effective(maker):
        raise NotPermitted(
            f"the key that makes this request lacks {Permission(min(beyond)).value} itself"
        )
    return wanted.permissions


def _networks(
    maker: tuple[Network, ...] | None, wanted: tuple[Network, ...] | None
) -> tuple[Network, ...] | None:
    if maker is None or wanted is None:
        return maker if wanted is None else wanted
    if not _inside(wanted, maker):
        raise Invalid(
            "each network must be within those of the key that makes this request", "networks"
        )
    return wanted


def _inside(inner: tuple[Network, ...] | None, outer: tuple[Network, ...]) -> bool:
    return inner is not None and all(
        any(
            # Both have the same IP version, and so the same class, which a type checker cannot see.
            each.version == around.version and each.subnet_of(around)  # type: ignore[arg-type]
            for around in outer
        )
        for each in inner
    )


def _end(maker: datetime | None, wanted: datetime | None) -> datetime | None:
    if maker is None or wanted is None:
        return maker if wanted is None else wanted
    if wanted > maker:
        raise Invalid(
            "must not be later than the end of the key that makes this request", "expires_at"
        )
    return wanted
