"""A sandbox's token: good for that sandbox, on behalf of one key, as long as both last."""

import base64
import hashlib
import time
from typing import Any

import httpx
import pytest

from runner.words.principal import Role
from tests.support.deployment import PORTS_DOMAIN, Deployment, bearing
from tests.support.e2b import control, create, knowing, within
from tests.support.routes import UNKNOWN_ID


@pytest.fixture(scope="module")
def client(deployed: Deployment) -> httpx.Client:
    """Return a client of the tenant whose sandboxes these tests use."""
    return control(deployed, "e2b-tokens")


@pytest.fixture(scope="module")
def made(client: httpx.Client) -> dict[str, Any]:
    """Return a sandbox as it was answered."""
    return create(client, timeout=900)


def ask(made: Deployment, sandbox_id: str, token: str, **headers: str) -> httpx.Response:
    """Ask inside a sandbox whether it runs."""
    answer = {"sandboxID": sandbox_id, "envdAccessToken": token}
    return within(made, answer, **headers).get("/health")


def test_a_token_opens_its_own_sandbox_only(
    deployed: Deployment, client: httpx.Client, made: dict[str, Any]
) -> None:
    """Beside it, one's own, another tenant's and nobody's sandboxes look the same."""
    token, id_ = made["envdAccessToken"], made["sandboxID"]
    assert ask(deployed, id_, token).status_code == 204
    own = create(client, timeout=300)["sandboxID"]
    theirs = create(control(deployed, "e2b-tokens-theirs"), timeout=300)["sandboxID"]
    for other in (own, theirs, UNKNOWN_ID, "nonsense"):
        refused = ask(deployed, other, token)
        assert refused.status_code == 502
        assert refused.json() == {
            "sandboxId": other, "message": "The sandbox was not found", "code": 502,
        }  # fmt: skip
    closed = ask(deployed, id_, token, E2b_Sandbox_Port="8000")
    assert (closed.status_code, closed.json()["port"]) == (502, 8000)
    assert "port is not open" in closed.json()["message"]


def test_a_changed_token_opens_nothing(deployed: Deployment, made: dict[str, Any]) -> None:
    """Each part of it is signed; what it names is refused in the same words as nonsense."""
    token, id_ = made["envdAccessToken"], made["sandboxID"]
    raw = bytearray(base64.urlsafe_b64decode(token.removeprefix("st_")))
    answers = set()
    for place in (0, 15, 16, 27, 28, 59):
        raw[place] ^= 1
        answers.add(ask(deployed, id_, f"st_{base64.urlsafe_b64encode(raw).decode()}").text)
        raw[place] ^= 1
    answers |= {ask(deployed, id_, each).text for each in ("", "st_", "nonsense", token[:-1])}
    assert len(answers) == 1
    assert '"code":401' in answers.pop()


def test_each_credential_has_its_own_part(
    deployed: Deployment, client: httpx.Client, made: dict[str, Any]
) -> None:
    """A key is worth nothing inside, and a token nothing outside; neither is a bearer token."""
    token, written = made["envdAccessToken"], client.headers["X-API-KEY"]
    with httpx.Client(base_url=deployed.url) as nobody:
        for path, headers in (
            ("/sandboxes", {"X-Access-Token": token}),
            ("/sandboxes", {"X-API-KEY": token}),
            ("/sandboxes", {"Authorization": f"Bearer {written}"}),
            ("/sandboxes", {"X-API-KEY": deployed.key("e2b-tokens")}),
            ("/health", {"X-API-KEY": written, "E2b-Sandbox-Id": made["sandboxID"]}),
            ("/health", {"X-Access-Token": written}),
            ("/v1/sandboxes", {"X-API-KEY": written}),
            ("/v1/sandboxes", {"X-Access-Token": token}),
            ("/v1/sandboxes", {"Authorization": f"Bearer {token}"}),
            ("/v1/sandboxes", {"Authorization": f"Bearer {written}"}),
        ):
            assert nobody.get(path, headers=headers).status_code == 401, (path, headers)


def test_a_token_ends_with_its_key(deployed: Deployment, client: httpx.Client) -> None:
    """The sandbox stays, and the token of another key with it."""
    owner = deployed.http("e2b-tokens")
    key = owner.post("/v1/keys", json={"name": "short", "role": "developer"}).json()
    short = knowing(deployed, key["token"])
    made = create(short, timeout=300)
    other = client.post(f"/v2/sandboxes/{made['sandboxID']}/connect", json={}).json()
    assert other["envdAccessToken"] != made["envdAccessToken"]
    assert within(deployed, made).get("/health").status_code == 204
    assert owner.delete(f"/v1/keys/{key['key']['id']}").status_code == 204
    assert within(deployed, made).get("/health").status_code == 401
    assert within(deployed, other).get("/health").status_code == 204
    short.close()


def test_a_token_has_no_more_rights_than_its_key(
    deployed: Deployment, made: dict[str, Any]
) -> None:
    """A caller that may not use sandboxes gets no token, or one that is worth nothing."""
    viewer = control(deployed, "e2b-tokens", Role.VIEWER)
    connecting = viewer.post(f"/v2/sandboxes/{made['sandboxID']}/connect", json={})
    assert (connecting.status_code, connecting.json()["code"]) == (403, 403)
    asked = {"name": "makes", "role": "owner", "permissions": ["sandbox:create"]}
    token = deployed.http("e2b-tokens").post("/v1/keys", json=asked).json()["token"]
    with knowing(deployed, token) as maker:
        refused = within(deployed, create(maker, timeout=300)).get("/health")
    assert refused.status_code == 403
    assert "sandbox:use" in refused.json()["message"]


def signature(token: str, path: str, operation: str = "read", expires: int | None = None) -> str:
    """Sign an address as E2B's clients do, by their documentation."""
    text = f"{path}:{operation}::{token}" + ("" if expires is None else f":{expires}")
    digest = hashlib.sha256(text.encode()).digest()
    return "v1_" + base64.b64encode(digest).decode().rstrip("=")


def status(made: Deployment, query: dict[str, Any], **headers: str) -> int:
    """Read a file by a signed address without a token; return the status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(f"{made.url}/files", params=query, headers=named, timeout=120).status_code


def test_a_signed_address_needs_neither_token_nor_id(
    deployed: Deployment, client: httpx.Client
) -> None:
    """It is found among all that live, for whichever key signed it, until something ends."""
    made = create(client, timeout=300)
    id_ = made["sandboxID"]
    other = control(deployed, "e2b-tokens").post(f"/v2/sandboxes/{id_}/connect", json={}).json()
    path, soon = "/etc/passwd", int(time.time()) + 600
    tokens = made["envdAccessToken"], other["envdAccessToken"]
    assert len(set(tokens)) == 2
    for token in tokens:
        for expires in (None, soon):
            rest: dict[str, Any] = {} if expires is None else {"signature_expiration": expires}
            made_of = signature(token, path, expires=expires)
            good: dict[str, Any] = {"path": path, "signature": made_of, **rest}
            assert status(deployed, good) == 200
            assert status(deployed, good, E2b_Sandbox_Id=id_) == 200
            assert status(deployed, good, E2b_Sandbox_Id=UNKNOWN_ID) == 401
            assert status(deployed, {**good, "path": "/etc/group"}) == 401
            assert status(deployed, {**good, "username": "root"}) == 401
            assert status(deployed, {**good, "signature": made_of[:-1] + "!"}) == 401
            written = {**good, "signature": signature(token, path, "write", expires)}
            assert status(deployed, written) == 401
    past = int(time.time()) - 1
    signed = signature(tokens[0], path, expires=past)
    over = {"path": path, "signature": signed, "signature_expiration": past}
    assert status(deployed, over) == 401
    last = {"path": path, "signature": signature(tokens[0], path)}
    assert status(deployed, last) == 200
    assert client.delete(f"/sandboxes/{id_}").status_code == 204
    assert status(deployed, last) == 401


def test_a_name_of_its_own_leads_inside_and_nowhere_else(
    deployed: Deployment, made: dict[str, Any]
) -> None:
    """If sandboxes have names, E2B's two ports lead to this API, for what is inside only."""
    token, id_ = made["envdAccessToken"], made["sandboxID"]
    for port in (49983, 49999):
        headers = {"Host": f"{port}-{id_}.{PORTS_DOMAIN}", "X-Access-Token": token}
        with httpx.Client(base_url=deployed.url, headers=headers) as named:
            assert named.get("/health").status_code == 204
            for path in ("/v1/sandboxes", "/sandboxes", "/docs", "/metrics"):
                assert named.get(path).status_code == 404, path
    headers = {"Host": f"49983-{UNKNOWN_ID}.{PORTS_DOMAIN}", "X-Access-Token": token}
    assert httpx.get(f"{deployed.url}/health", headers=headers).status_code == 502


def test_a_suspended_tenant_runs_nothing(deployed: Deployment) -> None:
    """Its keys read, and its tokens open nothing."""
    client = control(deployed, "e2b-suspended")
    assert client.get("/sandboxes").json() == []
    made = create(client, timeout=300)
    operator = deployed.operator()
    tenants = operator.get("/operator/v1/tenants").json()["items"]
    (id_,) = (each["id"] for each in tenants if each["name"] == "e2b-suspended")
    suspended = operator.post(f"/operator/v1/tenants/{id_}/suspend", json={"why": "test"})
    assert suspended.is_success, suspended.text
    assert client.get("/sandboxes").status_code == 200
    refused = client.post("/v2/sandboxes", json={"templateID": "base"})
    assert (refused.status_code, refused.json()["code"]) == (403, 403)
    assert within(deployed, made).get("/health").status_code in {403, 502}


def test_keys_are_shown_in_their_form(deployed: Deployment) -> None:
    """Whoever makes a key gets both forms."""
    owner = deployed.http("e2b-forms")
    made = owner.post("/v1/keys", json={"name": "x", "role": "viewer"}).json()
    with httpx.Client(base_url=deployed.url) as client:
        listed = client.get("/sandboxes", headers={"X-API-KEY": made["e2b_token"]})
    assert listed.json() == []
    with bearing(deployed.url, made["token"]) as same:
        assert same.get("/v1/sandboxes").json()["items"] == []
