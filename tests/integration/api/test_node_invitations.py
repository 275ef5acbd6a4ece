"""The operator invites hosts by the API, which tells them whom to trust and signs nothing."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from runner.door.identity import AUTHORITY, make_authority
from runner.door.joining import JoinToken, public_key_of
from tests.support.deployment import Deployment
from tests.support.routes import UNKNOWN_ID

INVITATIONS = "/operator/v1/node-invitations"


@pytest.fixture(scope="module")
def operator(shared: Deployment) -> httpx.Client:
    return shared.operator()


@pytest.fixture
def authority(shared: Deployment, tmp_path: Path) -> Iterator[Path]:
    """Return an authority whose certificate, without its key, the API's host has."""
    make_authority(tmp_path)
    folder = shared.stack.settings.door_certificates
    folder.mkdir(exist_ok=True)
    (folder / AUTHORITY).write_bytes((tmp_path / AUTHORITY).read_bytes())
    yield tmp_path
    (folder / AUTHORITY).unlink()


def invited(operator: httpx.Client) -> set[str]:
    return {each["invitation_id"] for each in operator.get(INVITATIONS).json()["items"]}


def test_a_host_is_invited_with_a_token_that_is_shown_once(
    operator: httpx.Client, authority: Path
) -> None:
    """It names the node and the authority, and is nowhere in the listing."""
    answer = operator.post(INVITATIONS, json={"node": "host-2", "minutes": 5})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    token = JoinToken.read(made["token"])
    assert (token.node, token.authority) == ("host-2", public_key_of(authority))
    assert made["open"] is True
    assert made["made_by"].startswith("operator:")
    listed = operator.get(INVITATIONS)
    assert made["invitation_id"] in invited(operator)
    assert token.secret not in listed.text


def test_an_invitation_is_revoked_once(operator: httpx.Client, authority: Path) -> None:
    made = operator.post(INVITATIONS, json={"node": "host-2"}).json()["invitation_id"]
    assert operator.delete(f"{INVITATIONS}/{made}").status_code == 204
    assert made not in invited(operator)
    ended = operator.get(INVITATIONS, params={"ended": True}).json()["items"]
    assert [each["open"] for each in ended if each["invitation_id"] == made] == [False]
    for gone in (made, UNKNOWN_ID, "no-id"):
        assert operator.delete(f"{INVITATIONS}/{gone}").status_code == 404


@pytest.mark.parametrize(
    "body",
    [{"node": ""}, {"node": "a b"}, {"node": "../x"}, {"node": "x" * 64}, {},
     {"node": "host-2", "minutes": 0}, {"node": "host-2", "minutes": 1441}],
    ids=["empty", "space", "path", "long", "none", "no time", "too long a time"],
)  # fmt: skip
def test_what_cannot_be_a_node_is_not_invited(
    operator: httpx.Client, authority: Path, body: dict[str, object]
) -> None:
    before = invited(operator)
    assert operator.post(INVITATIONS, json=body).status_code == 422
    assert invited(operator) == before


def test_without_an_authority_nobody_is_invited(operator: httpx.Client) -> None:
    """The API would not know whom a host should trust."""
    answer = operator.post(INVITATIONS, json={"node": "host-2"})
    assert answer.status_code == 409
    assert AUTHORITY in answer.json()["detail"]
