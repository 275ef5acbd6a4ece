"""`/v1/secrets`: who may write, and why nobody can read values back."""

from typing import Any

import httpx
import pytest

from agent_runner import Client, Invalid, NotFound, NotPermitted, Unavailable
from runner.words.principal import Role
from tests.support.deployment import Deployment

VALUE = "canary-of-the-routes"


def audited(client: Client, name: str) -> list[tuple[str, str]]:
    """Return what the log says about a secret."""
    records = client.audit(resource_id=name)["items"]
    return [(each["record"]["action"], each["record"]["outcome"]) for each in records]


def test_a_secret_is_listed_by_name_and_never_read_back(shared: Deployment) -> None:
    """No answer of any route holds its value, and every change is recorded."""
    client = shared.client("secretive")
    written = client.put_secret("token", VALUE)
    again = client.put_secret("token", VALUE)
    assert set(written) == {"name", "created_at", "updated_at"}
    assert again["created_at"] == written["created_at"] < again["updated_at"]
    assert client.secrets() == [again]
    client.delete_secret("token")
    assert client.secrets() == []
    assert audited(client, "token") == [
        ("secret:create", "success"),
        ("secret:update", "success"),
        ("secret:delete", "success"),
    ]
    assert VALUE not in str([written, again, client.audit()])


def test_no_route_reads_a_value(shared: Deployment) -> None:
    """There is no GET of one secret, and no other tenant's is known."""
    ours, theirs = shared.client("s-ours"), shared.client("s-theirs")
    theirs.put_secret("theirs", VALUE)
    assert ours.secrets() == []
    with pytest.raises(NotFound):
        ours.delete_secret("theirs")
    assert [each["name"] for each in theirs.secrets()] == ["theirs"]
    headers = {"Authorization": f"Bearer {shared.key('s-theirs')}"}
    answer = httpx.get(f"{shared.url}/v1/secrets/theirs", headers=headers)
    assert answer.status_code == 405
    document = httpx.get(f"{shared.url}/openapi.json").json()
    methods = {path: set(item) for path, item in document["paths"].items() if "secrets" in path}
    assert methods == {"/v1/secrets": {"get"}, "/v1/secrets/{name}": {"put", "delete"}}


@pytest.mark.parametrize("role", Role)
def test_admins_alone_manage_secrets(role: Role, shared: Deployment) -> None:
    """Others are refused, and the log records that."""
    owner, client = shared.client(f"s-{role}"), shared.client(f"s-{role}", role)
    calls = (
        client.secrets,
        lambda: client.put_secret("token", VALUE),
        lambda: client.delete_secret("token"),
    )
    if role in {Role.OWNER, Role.ADMIN}:
        for call in calls:
            call()
        return
    for call in calls:
        with pytest.raises(NotPermitted, match="secret:"):
            call()
    denied = owner.audit(action="access:denied")["items"]
    assert [each["record"]["metadata"]["permission"] for each in denied] == [
        "secret:read", "secret:write", "secret:write",
    ]  # fmt: skip


WRONG: dict[str, tuple[str, Any]] = {
    "too short to be masked": ("token", "short"),
    "too long": ("token", "x" * 8193),
    "too long in bytes": ("token", "\N{SNOWMAN}" * 3000),
    "NUL": ("token", "with\0within"),
    "no text": ("token", 12345678),
    "a name with a slash": ("a/b", VALUE),
    "a name that begins with a dot": (".token", VALUE),
    "a long name": ("n" * 129, VALUE),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_without_repeating_it(name: str, shared: Deployment) -> None:
    """This holds on every route, but here it matters most."""
    secret, value = WRONG[name]
    with pytest.raises((Invalid, NotFound)) as refused:
        shared.client("s-wrong").put_secret(secret, value)
    assert str(value) not in f"{refused.value} {refused.value.errors}"
    assert shared.client("s-wrong").secrets() == []


def test_a_variable_is_a_secret_or_plain_not_both(shared: Deployment) -> None:
    """Otherwise the request would have two meanings."""
    with pytest.raises(Invalid, match="secret_env"):
        shared.client("s-both").submit(command=["true"], env={"A": "1"}, secret_env={"A": "token"})


def test_without_a_key_secrets_are_unavailable_and_all_else_works(own: Deployment) -> None:
    """A deployment without a key does not store values in clear instead."""
    key_file = own.stack.settings.secrets_key_path
    key_file.unlink()
    client = own.client("keyless")
    with pytest.raises(Unavailable, match="RUNNER_SECRETS_KEY"):
        client.put_secret("token", VALUE)
    assert client.secrets() == []
    assert own.sql("SELECT count(*) FROM secret_keys") == [{"count": 0}]
    assert client.run(command=["true"]).state == "succeeded"
    assert not key_file.exists()
