"""A sealed text opens only with its key, in its place, and unchanged."""

from uuid import UUID

import pytest

from runner.secrets import envelope
from runner.secrets.envelope import Unopened
from runner.words.ids import new_id

TENANT, OTHER = new_id(), new_id()
HERE = envelope.value_of(TENANT, "token")


def test_a_sealed_value_opens() -> None:
    """It opens with the key and for the place with which it was sealed."""
    key = envelope.new_key()
    sealed = envelope.seal(key, b"value", bound_to=HERE)
    assert b"value" not in sealed
    assert envelope.unseal(key, sealed, bound_to=HERE) == b"value"


def test_the_same_value_is_never_sealed_to_the_same_bytes() -> None:
    """Each has a nonce of its own, so nobody can see that two secrets are equal."""
    key = envelope.new_key()
    assert len({envelope.seal(key, b"value", bound_to=HERE) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "place",
    [
        envelope.value_of(TENANT, "other"),
        envelope.value_of(OTHER, "token"),
        envelope.data_key_of(TENANT),
        b"",
    ],
    ids=["another name", "another tenant", "a key's", "nowhere"],
)
def test_it_does_not_open_in_another_place(place: bytes) -> None:
    """A copy under another name or tenant is worthless."""
    key = envelope.new_key()
    sealed = envelope.seal(key, b"value", bound_to=HERE)
    with pytest.raises(Unopened):
        envelope.unseal(key, sealed, bound_to=place)


def test_a_place_is_one_tenants_and_one_names() -> None:
    """No two places give the same bytes."""
    low = UUID(int=0)
    places = {envelope.value_of(t, n) for t in (low, TENANT) for n in ("a", "ab", "b")}
    assert len(places | {envelope.data_key_of(low), envelope.data_key_of(TENANT)}) == 8


def test_a_changed_bit_or_another_key_is_noticed() -> None:
    """This holds for every byte, and for the length."""
    key = envelope.new_key()
    sealed = envelope.seal(key, b"value", bound_to=HERE)
    changed = [
        sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))
    ]
    for wrong in (*changed, sealed[:-1], sealed + b"\0", b"", b"\0" * 12):
        with pytest.raises(Unopened):
            envelope.unseal(key, wrong, bound_to=HERE)
    for other in (envelope.new_key(), b"", b"short"):
        with pytest.raises(Unopened):
            envelope.unseal(other, sealed, bound_to=HERE)
