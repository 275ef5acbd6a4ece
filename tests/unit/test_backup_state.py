"""A backup has the files of a state folder that a start does not make anew."""

from runner.backup.state import PRIVATE, PUBLIC
from runner.door.identity import AUTHORITY, AUTHORITY_KEY, DoorRole
from runner.door.revocation import REVOKED

KEPT = {*DoorRole} - {DoorRole.ADMISSION}
"""The admission makes itself a new certificate at each start."""


def test_everything_that_a_door_reads_is_in_it() -> None:
    """A restored door that had lost the list of revoked certificates would let them in again."""
    reads = {AUTHORITY, REVOKED, *(f"{role.value}.pem" for role in KEPT)}
    assert {f"door/{name}" for name in reads} <= {*PUBLIC, *PRIVATE}


def test_keys_are_never_among_what_is_public() -> None:
    with_keys = {AUTHORITY_KEY, *(f"{role.value}.pem" for role in KEPT)}
    assert {f"door/{name}" for name in with_keys} <= {*PRIVATE}
    assert not {f"door/{name}" for name in with_keys} & {*PUBLIC}
