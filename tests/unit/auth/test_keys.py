"""API keys: random, parsed strictly, compared by hash."""

import pytest

from runner.auth import keys
from runner.auth.permissions import ALLOWED, Permission, of_role
from runner.words.principal import Role


def test_keys_differ_and_prove_themselves() -> None:
    """Each key is new, and matches its own hash and no other."""
    one, other = keys.generate(), keys.generate()
    assert one.token != other.token
    assert keys.matches(one.token, one.hash)
    assert not keys.matches(other.token, one.hash)
    assert keys.prefix_of(one.token) == one.prefix


def test_a_key_shows_neither_token_nor_hash() -> None:
    """Its repr in a log reveals nothing."""
    made = keys.generate()
    assert made.token not in repr(made)
    assert repr(made.hash) not in repr(made)


@pytest.mark.parametrize(
    "token",
    ["", "rk_", "rk_abc_def", "rk_" + "a" * 12 + "_" + "A" * 42, "rk_" + "a" * 12 + "_" + "A" * 44,
     "rk_" + "A" * 12 + "_" + "A" * 43, "rk_" + "a" * 12 + "_" + "A" * 42 + "\n",
     "xx_" + "a" * 12 + "_" + "A" * 43],
)  # fmt: skip
def test_what_is_no_key_has_no_prefix(token: str) -> None:
    """Length, alphabet and form must be exact."""
    assert keys.prefix_of(token) is None


def test_every_permission_is_somebodys_and_always_the_owners() -> None:
    """Every permission belongs to some role, and the owner has all of them."""
    assert set(ALLOWED) == set(Permission)
    assert of_role(Role.OWNER) == set(Permission)


def test_a_viewer_only_reads() -> None:
    """It changes only its own password and sessions, and cannot read the audit log."""
    assert of_role(Role.VIEWER) == {
        Permission.ACCOUNT_READ,
        Permission.ACCOUNT_WRITE,
        Permission.PROJECT_READ,
        Permission.EXECUTION_READ,
        Permission.ARTIFACT_READ,
        Permission.EGRESS_POLICY_READ,
        Permission.FILE_READ,
        Permission.SANDBOX_READ,
        Permission.SNAPSHOT_READ,
        Permission.TEMPLATE_READ,
        Permission.USAGE_READ,
    }
