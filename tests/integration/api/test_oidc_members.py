"""Tokens of an identity provider that stand for members: whose, in which tenant, for how long."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from runner.words.principal import Role
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment
from tests.support.issuers import AUDIENCE, Provider, new_key, provider
from tests.support.people import Person, id_of, joined, operate

SLEEP = {"command": ["sleep", "600"]}


@dataclass(frozen=True)
class Linking:
    """A deployment where subjects stand for members, and the issuer of their tokens."""

    deployment: Deployment
    issuer: Provider

    def member(self, tenant: str, name: str, role: Role = Role.DEVELOPER) -> Person:
        """Return a member for whom the subject of that name stands."""
        person = joined(self.deployment, tenant, name, role)
        self.command("link", tenant, name)
        return person

    def command(self, what: str, tenant: str, name: str) -> str:
        """Link or unlink a subject, as the operator does."""
        return operate(
            self.deployment, what, "--tenant", tenant, "--email", f"{name}@example.com",
            "--subject", f"subject-of-{name}",
        )  # fmt: skip

    def headers(self, name: str, tenant: str | None = None, **claims: Any) -> dict[str, str]:
        """Return the headers of a request with a token of that subject."""
        claims = {"sub": f"subject-of-{name}", **claims}
        token = self.issuer.token("EC", self.issuer.claims(**claims))
        named = {"X-Runner-Tenant": tenant} if tenant else {}
        return {"Authorization": f"Bearer {token}", **named}

    def me(self, name: str, tenant: str | None = None, **claims: Any) -> httpx.Response:
        """Ask who calls."""
        url = f"{self.deployment.url}/v1/me"
        return httpx.get(url, headers=self.headers(name, tenant, **claims), timeout=30)


@pytest.fixture(scope="module")
def linking(image: None) -> Iterator[Linking]:
    """Return a deployment that trusts an issuer about who somebody is, and about nothing else."""
    with provider() as issuer:
        issuer.keys = {"EC": new_key("EC", "EC")}
        with deployments.deployment(
            oidc_issuer=issuer.url,
            oidc_audience=AUDIENCE,
            oidc_members=True,
            oidc_tenant_claim="home",
            insecure_cookies=True,
            **NO_POOL,
        ) as made:
            yield Linking(made, issuer)


def test_a_token_acts_as_the_member_and_its_claims_give_no_role(linking: Linking) -> None:
    """The audit log names the member as in a session; a new role counts at once."""
    owner = joined(linking.deployment, "m-one", "one-owner")
    ada = linking.member("m-one", "one-ada", Role.VIEWER)
    id_ = id_of(owner, ada.email)
    me = linking.me("one-ada", role="owner").json()
    assert (me["kind"], me["name"], me["tenant"], me["role"]) == ("user", id_, "m-one", "viewer")
    assert owner.http.patch(f"/v1/members/{id_}", json={"role": "admin"}).is_success
    assert linking.me("one-ada").json()["role"] == "admin"
    log = owner.http.get("/v1/audit", params={"action": "member:link"}).json()["items"]
    (record,) = (each["record"] for each in log)
    assert record["metadata"] == {"issuer": linking.issuer.url, "subject": "subject-of-one-ada"}


def test_a_subject_without_a_link_gets_in_nowhere(linking: Linking) -> None:
    """A right token is not enough, and neither is a link of the same subject at another issuer."""
    joined(linking.deployment, "m-none", "none-ada")
    for tenant in (None, "m-none"):
        refused = linking.me("none-ada", tenant)
        assert refused.status_code == 403
        assert "runner members link" in refused.json()["detail"]
    linking.command("link", "m-none", "none-ada")
    moved = "UPDATE identities SET issuer = %s WHERE subject = 'subject-of-none-ada'"
    linking.deployment.sql(moved, "https://elsewhere.example")
    assert linking.me("none-ada").status_code == 403
    linking.deployment.sql(moved, linking.issuer.url)
    assert linking.me("none-ada").status_code == 200


def test_somebody_of_several_tenants_says_which_one(linking: Linking) -> None:
    """The token says it, or else the request; one cannot contradict the other."""
    ada = linking.member("m-first", "both")
    linking.deployment.key("m-second")
    token = operate(
        linking.deployment, "add", "--tenant", "m-second", "--email", ada.email,
        "--role", "viewer",
    )  # fmt: skip
    assert ada.accept(token).is_success
    assert linking.me("both").json()["tenant"] == "m-first", "only one is linked yet"
    linking.command("link", "m-second", "both")
    linking.deployment.key("m-third")

    refused = linking.me("both")
    assert refused.status_code == 403
    assert "X-Runner-Tenant" in refused.json()["detail"]
    for tenant, role in (("m-first", "developer"), ("m-second", "viewer")):
        for answer in (linking.me("both", tenant), linking.me("both", home=tenant)):
            me = answer.json()
            assert (me["tenant"], me["role"]) == (tenant, role)
        assert linking.me("both", tenant, home=tenant).status_code == 200
    assert linking.me("both", "m-second", home="m-first").status_code == 401
    for nobodys in ("m-third", "no-such-tenant"):
        assert linking.me("both", nobodys).status_code == 403
        assert linking.me("both", home=nobodys).status_code == 403


@pytest.mark.parametrize("how", ["removed", "unlinked"])
def test_what_a_token_opened_ends_with_the_link(linking: Linking, how: str) -> None:
    """The stream of another linked member of the same tenant goes on."""
    tenant = f"m-{how}"
    owner = joined(linking.deployment, tenant, f"{how}-owner")
    ada = linking.member(tenant, f"{how}-ada")
    linking.member(tenant, f"{how}-bob")
    execution = owner.http.post("/v1/executions", json=SLEEP).json()["id"]
    url = f"{linking.deployment.url}/v1/executions/{execution}/events"
    ended: dict[str, bool] = {}
    with (
        httpx.stream("GET", url, headers=linking.headers(f"{how}-ada"), timeout=60) as hers,
        httpx.stream("GET", url, headers=linking.headers(f"{how}-bob"), timeout=1) as his,
    ):
        assert (hers.status_code, his.status_code) == (200, 200)
        if how == "removed":
            assert owner.http.delete(f"/v1/members/{id_of(owner, ada.email)}").is_success
        else:
            linking.command("unlink", tenant, f"{how}-ada")
        ended["hers"] = _ends(hers)
        ended["his"] = _ends(his)
    assert ended == {"hers": True, "his": False}
    assert linking.me(f"{how}-ada").status_code == 403
    assert linking.me(f"{how}-bob").status_code == 200
    links = linking.deployment.sql(
        "SELECT subject FROM identities WHERE subject LIKE %s", f"subject-of-{how}-%"
    )
    assert links == [{"subject": f"subject-of-{how}-bob"}]
    owner.http.post(f"/v1/executions/{execution}/cancel")


def _ends(stream: httpx.Response) -> bool:
    """Return whether a stream ends, before nothing comes for its time-out."""
    try:
        for _ in stream.iter_raw():
            pass
    except httpx.ReadTimeout:
        return False
    except httpx.RemoteProtocolError:
        return True
    return True


def test_the_operator_hears_why_a_link_is_refused(linking: Linking) -> None:
    """Nobody is linked twice in a tenant, and no stranger."""
    linking.member("m-refused", "refused-ada")
    for name, why in (
        ("refused-ada", "already stands for a member"),
        ("nobody-of-theirs", "no member of the tenant"),
    ):
        with pytest.raises(AssertionError, match=why):
            linking.command("link", "m-refused", name)
    linking.command("unlink", "m-refused", "refused-ada")
    with pytest.raises(AssertionError, match="does not stand for that member"):
        linking.command("unlink", "m-refused", "refused-ada")
