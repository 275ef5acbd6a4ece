"""Nobody can pass on more rights than they have."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.auth.grants import covers, effective, narrowed
from runner.auth.permissions import Permission, of_role
from runner.store.keys import Grant
from runner.words.errors import Invalid, NotPermitted
from runner.words.principal import Role

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NETWORKS = tuple(
    map(ip_network, ("10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", "2001:db8::/32", "0.0.0.0/0"))
)
MOMENTS = st.none() | st.integers(0, 3).map(lambda days: NOW + timedelta(days=days))
GRANTS = st.builds(
    Grant,
    role=st.sampled_from(Role),
    permissions=st.none() | st.frozensets(st.sampled_from(Permission), min_size=1),
    networks=st.none() | st.lists(st.sampled_from(NETWORKS), min_size=1, max_size=2).map(tuple),
    expires_at=MOMENTS,
)


@given(maker=GRANTS, wanted=GRANTS)
def test_what_is_given_is_covered_by_its_maker(maker: Grant, wanted: Grant) -> None:
    """Role, permissions, networks and time are within the maker's, or nothing is given."""
    try:
        given_ = narrowed(maker, wanted)
    except (NotPermitted, Invalid):
        return
    assert covers(maker, given_)
    assert effective(given_) <= effective(maker)


@given(maker=GRANTS, wanted=GRANTS)
def test_what_a_maker_covers_is_given_as_it_was_asked_for(maker: Grant, wanted: Grant) -> None:
    """The maker may give everything that it has itself."""
    if covers(maker, wanted) and effective(wanted) >= (wanted.permissions or frozenset()):
        assert effective(narrowed(maker, wanted)) == effective(wanted)


def test_what_is_left_open_is_what_the_maker_has() -> None:
    """For example, a key for one network does not make a key for all networks."""
    maker = Grant(
        Role.ADMIN, frozenset({Permission.API_KEY_WRITE, Permission.SECRET_READ}),
        (ip_network("192.0.2.0/24"),), NOW,
    )  # fmt: skip
    made = narrowed(maker, Grant(Role.ADMIN))
    assert (made.permissions, made.networks, made.expires_at) == (
        maker.permissions, maker.networks, maker.expires_at,
    )  # fmt: skip


@pytest.mark.parametrize(
    "wanted",
    [
        Grant(Role.OWNER),
        Grant(Role.ADMIN, frozenset({Permission.AUDIT_READ})),
        Grant(Role.ADMIN, networks=(ip_network("198.51.100.0/24"),)),
        Grant(Role.ADMIN, networks=(ip_network("0.0.0.0/0"),)),
        Grant(Role.ADMIN, networks=(ip_network("::/0"),)),
        Grant(Role.ADMIN, expires_at=NOW + timedelta(days=1)),
        Grant(Role.VIEWER, frozenset({Permission.SECRET_WRITE})),
    ],
)
def test_more_than_the_maker_has_is_refused(wanted: Grant) -> None:
    """The test exceeds one bound at a time; a maker without that bound gives the key."""
    maker = Grant(
        Role.ADMIN, of_role(Role.ADMIN) - {Permission.AUDIT_READ},
        (ip_network("192.0.2.0/24"),), NOW,
    )  # fmt: skip
    with pytest.raises((NotPermitted, Invalid)):
        narrowed(maker, wanted)
    if wanted.role is not Role.VIEWER:
        narrowed(Grant(Role.OWNER), wanted)
