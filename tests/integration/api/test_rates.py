"""Rate limits as a client sees them: by address before a key is looked up, then by tier."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from runner.api.edge.doubt import WRONG_S
from runner.api.edge.groups import OPEN_WITHOUT_REDIS, Group, group_of
from runner.auth.keys import in_e2b_form
from runner.base.rates import Rate, RateLimits
from runner.words.ids import new_id
from runner.words.principal import Tier
from tests.support.deployment import NO_POOL, Deployment, deployment
from tests.support.routes import UNKNOWN_ID

ANONYMOUS, FREE, PRO = 20, 100, 500
ENTERPRISE = Rate(per_minute=7, burst=8)


@pytest.fixture(scope="module")
def limited(image: None) -> Iterator[Deployment]:
    """Return a deployment with the shipped rates, behind a proxy at 127.0.0.1."""
    with deployment(
        rate_limits=RateLimits(enterprise=ENTERPRISE), trusted_proxies=("127.0.0.1/32",), **NO_POOL
    ) as made:
        yield made


def ask(
    made: Deployment, times: int, path: str = "/v1/executions", **headers: str
) -> list[httpx.Response]:
    """Ask this many times, eight at once."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with (
        httpx.Client(base_url=made.url, headers=named, timeout=30) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        return list(pool.map(lambda _: client.get(path), range(times)))


def count(answers: list[httpx.Response]) -> dict[int, int]:
    """Return how many answers had each status."""
    statuses = [answer.status_code for answer in answers]
    return {status: statuses.count(status) for status in sorted(set(statuses))}


@pytest.mark.parametrize(
    ("tier", "most"), [(Tier.FREE, FREE), (Tier.PRO, PRO), (Tier.ENTERPRISE, ENTERPRISE.burst)]
)
def test_a_tier_has_its_burst_and_not_one_more(tier: Tier, most: int, limited: Deployment) -> None:
    """One key asks eight times at once; enterprise has what the operator set."""
    key = limited.key(f"tier-{tier}", tier=tier)
    answers = ask(limited, most + 5, Authorization=f"Bearer {key}", X_Forwarded_For="192.0.2.1")
    assert count(answers) == {200: most, 429: 5}


def test_a_refusal_says_when_to_come_back(limited: Deployment) -> None:
    """It is a problem document with the draft's fields, the older ones, and `Retry-After`."""
    key = limited.key("told", tier=Tier.ENTERPRISE)
    answers = ask(limited, ENTERPRISE.burst + 1, Authorization=f"Bearer {key}")
    # The last one that was sent need not be the last one that was counted.
    passed = [each for each in answers if each.status_code == 200]
    (refused,) = (each for each in answers if each.status_code == 429)
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["type"] == "urn:runner:problem:too-many-requests"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit-policy"] == '"minute";q=8;w=60, "sustained";q=35;w=300'
    assert re.fullmatch(r'"minute";r=0;t=\d+, "sustained";r=27;t=\d+', refused.headers["ratelimit"])
    assert min(int(each.headers["ratelimit-remaining"]) for each in passed) == 0
    assert {each.headers["ratelimit-limit"] for each in passed} == {"8"}
    assert all(0 < int(each.headers["ratelimit-reset"]) <= 60 for each in passed)


def test_a_browser_that_signs_in_too_often_is_shown_a_page(limited: Deployment) -> None:
    """A program reads the same as a problem: see above."""
    path, address = f"{limited.url}/v1/login/oidc", {"X-Forwarded-For": "192.0.2.77"}
    program = {**address, "Accept": "application/json"}
    statuses = {httpx.get(path, headers=program).status_code for _ in range(ANONYMOUS + 1)}
    assert statuses == {404, 429}
    assert httpx.get(path, headers=program).headers["content-type"] == "application/problem+json"
    seen = httpx.get(path, headers={**address, "Accept": "text/html,*/*;q=0.8"})
    assert (seen.status_code, seen.headers["location"]) == (303, "/console#/sign-in/too-many")


def test_groups_keys_and_tenants_are_counted_apart(limited: Deployment) -> None:
    """Reads and submissions are counted separately, and so are callers."""
    key = limited.key("apart", tier=Tier.ENTERPRISE)
    bearer = {"Authorization": f"Bearer {key}"}
    assert count(ask(limited, 9, **bearer)) == {200: 8, 429: 1}
    submitted = httpx.post(
        f"{limited.url}/v1/executions", json={"command": ["true"]}, headers=bearer
    )
    assert submitted.status_code == 202
    for other in (limited.key("apart"), limited.key("elsewhere", tier=Tier.ENTERPRISE)):
        assert count(ask(limited, 1, Authorization=f"Bearer {other}")) == {200: 1}


@pytest.mark.parametrize(
    "path", [f"/v1/sandboxes/{UNKNOWN_ID}/fork", f"/sandboxes/{UNKNOWN_ID}/fork"]
)
def test_each_copy_of_a_sandbox_is_counted(path: str, limited: Deployment) -> None:
    """Two forks of one copy each are two requests, and that is the control."""

    def forks(name: str, copies: int) -> list[int]:
        key = limited.key(name, tier=Tier.ENTERPRISE)
        theirs = path.startswith("/sandboxes")
        proof = {"X-API-Key": in_e2b_form(key)} if theirs else {"Authorization": f"Bearer {key}"}
        body = {"count": copies}
        return [
            httpx.post(f"{limited.url}{path}", json=body, headers=proof).status_code
            for _ in range(2)
        ]

    of = path.partition("/sandboxes")[0].strip("/")
    assert forks(f"one-copy-{of}", 1) == [404, 404]
    assert forks(f"many-copies-{of}", 16) == [404, 429]


def test_strangers_are_counted_by_their_address(limited: Deployment) -> None:
    """They have no key, and may ask for anything; another address has its own count."""
    answers = ask(limited, ANONYMOUS, X_Forwarded_For="198.51.100.1")
    assert count(answers) == {401: ANONYMOUS}
    for path in ("/v1/executions", "/openapi.json", "/none"):
        refused = ask(limited, 1, path, X_Forwarded_For="198.51.100.1")
        assert count(refused) == {429: 1}
    assert count(ask(limited, 1, X_Forwarded_For="198.51.100.2")) == {401: 1}
    assert count(ask(limited, 1, "/healthz", X_Forwarded_For="198.51.100.1")) == {200: 1}


def test_an_address_that_pretends_is_found_out(limited: Deployment) -> None:
    """Headers that a client writes itself change nothing, behind the proxy or around it."""
    for n in range(ANONYMOUS):
        ask(limited, 1, X_Forwarded_For=f"203.0.113.{n}, 198.51.100.3")
    assert count(ask(limited, 1, X_Forwarded_For="203.0.113.99, 198.51.100.3")) == {429: 1}
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(base_url=limited.url, transport=transport) as client:
        answers = [
            client.get("/v1/executions", headers={"X-Forwarded-For": f"203.0.113.{n}"})
            for n in range(ANONYMOUS + 1)
        ]
    assert count(answers) == {401: ANONYMOUS, 429: 1}


def guesses(
    made: Deployment, tenant: str, address: str, times: int
) -> tuple[list[httpx.Response], int]:
    """Guess a key's secret; return the answers, and how many were recorded."""
    forged = made.key(tenant)[:-43] + "A" * 43
    answers = [
        httpx.get(
            f"{made.url}/v1/executions",
            headers={"Authorization": f"Bearer {forged[:-5]}{n:05}", "X-Forwarded-For": address},
        )
        for n in range(times)
    ]
    looked_up = made.sql(
        "SELECT count(*) AS n FROM audit_events e JOIN tenants t USING (tenant_id) "
        "WHERE t.name = %s AND e.body LIKE %s",
        tenant,
        "%authentication:verify%",
    )
    return answers, looked_up[0]["n"]


def test_guesses_stop_being_told_and_recorded(limited: Deployment, shared: Deployment) -> None:
    """The control: a deployment with other limits tells and records every one of them."""
    answers, looked_up = guesses(limited, "guessed", "198.51.100.4", ANONYMOUS + 10)
    assert count(answers) == {401: ANONYMOUS, 429: 10}
    assert looked_up == ANONYMOUS
    answers, looked_up = guesses(shared, "guessed-there", "198.51.100.4", ANONYMOUS + 10)
    assert count(answers) == {401: ANONYMOUS + 10}
    assert looked_up == ANONYMOUS + 10


def test_a_login_is_counted_whatever_else_it_carries(limited: Deployment) -> None:
    """A valid cookie or key does not make a guess at a password somebody else's."""
    key = limited.key("logging-in", tier=Tier.PRO)
    for address, carried in (
        ("198.51.100.7", {"Cookie": "a=1"}),
        ("198.51.100.8", {"Authorization": f"Bearer {key}"}),
    ):
        headers = {**carried, "X-Forwarded-For": address}
        answers = [
            httpx.post(f"{limited.url}/v1/login", json={}, headers=headers)
            for _ in range(ANONYMOUS + 1)
        ]
        assert [each.status_code for each in answers].count(429) == 1
        assert answers[-1].status_code == 429


def test_strangers_do_not_lock_out_keys_at_their_address(limited: Deployment) -> None:
    """The strangers' rate is used up, and a key that is new here is still served."""
    behind = {"X_Forwarded_For": "198.51.100.9"}
    assert count(ask(limited, ANONYMOUS + 1, **behind)) == {401: ANONYMOUS, 429: 1}
    new = limited.key("newcomer")
    assert count(ask(limited, 1, Authorization=f"Bearer {new}", **behind)) == {200: 1}


def test_guesses_do_not_lock_out_keys_at_their_address(limited: Deployment) -> None:
    """A recently verified key continues, a new one is served, and one that ended is not."""
    behind = {"X_Forwarded_For": "198.51.100.5"}
    key, new = limited.key("neighbour"), limited.key("neighbour")
    assert count(ask(limited, 1, Authorization=f"Bearer {key}", **behind)) == {200: 1}
    guesses(limited, "guessed-nearby", "198.51.100.5", ANONYMOUS)
    assert count(ask(limited, 1, Authorization=f"Bearer {key}", **behind)) == {200: 1}
    assert count(ask(limited, 1, Authorization=f"Bearer {new}", **behind)) == {200: 1}
    limited.sql("UPDATE api_keys SET revoked_at = now() WHERE prefix = %s", key.split("_")[1])
    assert count(ask(limited, 1, Authorization=f"Bearer {key}", **behind)) == {401: 1}
    assert count(ask(limited, 1, Authorization=f"Bearer {key}", **behind)) == {429: 1}


def test_a_new_key_is_served_while_its_neighbours_go_on_guessing(limited: Deployment) -> None:
    """Its turn comes, and guesses from one address are verified at twenty a second at most."""
    address = "198.51.100.10"
    guesses(limited, "guessed-on", address, ANONYMOUS)
    forged = f"Bearer {limited.key('guessed-on')[:-43]}{'B' * 43}"
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        guessing = pool.submit(ask, limited, 40, Authorization=forged, X_Forwarded_For=address)
        new = limited.key("patient")
        answers = ask(limited, 1, Authorization=f"Bearer {new}", X_Forwarded_For=address)
        assert count(answers) == {200: 1}
        assert count(guessing.result()) == {429: 40}
        assert time.monotonic() - began >= 40 * WRONG_S


def test_the_audit_log_has_the_address_behind_the_proxy(limited: Deployment) -> None:
    """It is the address that is counted."""
    key = limited.key("seen", tier=Tier.PRO)
    headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": "1.2.3.4, 198.51.100.6"}
    httpx.put(f"{limited.url}/v1/secrets/one", json={"value": "s3cr3t-t0ken"}, headers=headers)
    found = limited.client("seen", tier=Tier.PRO).audit(action="secret:create")["items"]
    assert [each["record"]["ip"] for each in found] == ["198.51.100.6"]


def test_a_deployment_may_count_nothing(image: None) -> None:
    """The operator may choose this; headers then promise nothing."""
    with deployment(rate_limiting=False, rate_limits=RateLimits(), **NO_POOL) as made:
        answers = ask(made, ANONYMOUS + 5)
        assert count(answers) == {401: ANONYMOUS + 5}
        assert not any("ratelimit" in each.headers for each in answers)


TRIED = [
    ("GET", "/v1/executions", None),
    ("GET", "/v1/audit", None),
    ("GET", "/v1/audit/verification", None),
    ("POST", "/v1/executions", {"command": ["true"]}),
    ("PUT", "/v1/secrets/one", {"value": "s3cr3t-t0ken"}),
    ("DELETE", "/v1/secrets/one", None),
    ("POST", "/v1/executions/{execution_id}/cancel", None),
]


def test_without_redis_what_is_cheap_to_read_stays_and_the_rest_is_refused(own: Deployment) -> None:
    """It follows the table, promptly, and all is as before once Redis is back."""
    new = httpx.Client(base_url=own.url, headers={"Authorization": f"Bearer {own.key('away')}"})
    with new as client:
        ran = own.client("away").run(command=["true"])
        own.stack.services.redis.stop()
        for method, template, body in TRIED:
            path = template.replace("{execution_id}", ran.id)
            began = time.monotonic()
            answer = client.request(method, path, json=body)
            assert time.monotonic() - began < 2
            stays = OPEN_WITHOUT_REDIS[group_of(method, template)]
            assert answer.status_code == (200 if stays else 503), (method, path)
            if not stays:
                assert answer.headers["retry-after"]
        assert client.get("/healthz").status_code == 200
        own.stack.services.redis.start()
        time.sleep(1.1)
        assert client.put("/v1/secrets/one", json={"value": "s3cr3t-t0ken"}).status_code == 200


def test_every_route_is_in_a_group_that_is_meant_for_it(shared: Deployment) -> None:
    """Routes that change something are never served uncounted, and every group is used."""
    document = httpx.get(f"{shared.url}/openapi.json").json()
    groups = {
        (method.upper(), path): group_of(method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
    }
    for (method, _), group in groups.items():
        assert method in {"GET", "HEAD"} or group is Group.STOP or not OPEN_WITHOUT_REDIS[group]
    # What goes to a port has any method and path, so no document can list it.
    assert set(groups.values()) >= set(Group) - {Group.LOGIN, Group.PORTS}
    assert group_of("POST", "/v1/login") is Group.LOGIN
    assert group_of("QUERY", "/anything") is Group.WRITE


def test_what_many_sandboxes_use_counts_once_for_each(limited: Deployment) -> None:
    """Sandboxes that do not exist count, too, because each is looked for."""
    most = 10 * ENTERPRISE.burst
    key = {"X-API-KEY": in_e2b_form(limited.key("measured", tier=Tier.ENTERPRISE))}
    with httpx.Client(base_url=limited.url, headers=key, timeout=30) as client:

        def ask_for(count: int) -> int:
            ids = ",".join(str(new_id()) for _ in range(count))
            return client.get("/sandboxes/metrics", params={"sandbox_ids": ids}).status_code

        assert ask_for(most - 10) == 200
        # As long as there is a place, a request is counted as a whole.
        assert ask_for(10) == 200
        assert ask_for(1) == 429


def test_a_long_listing_of_a_sandbox_costs_as_much_as_further_requests(limited: Deployment) -> None:
    """To make the answer is the work of several plain requests."""
    client = limited.client("listing", tier=Tier.ENTERPRISE)
    with client.sandboxes.create(size="small") as sandbox:
        made = sandbox.run("mkdir many && cd many && seq 3000 | xargs touch")
        assert made.exit_code == 0

        def listed(limit: int) -> dict[int, int]:
            """Return the statuses of answers to a key that has asked for nothing else."""
            key = limited.key("listing", tier=Tier.ENTERPRISE)
            path = f"/v1/sandboxes/{sandbox.id}/files?path=many&limit={limit}"
            return count(ask(limited, 60, path, Authorization=f"Bearer {key}"))

        assert listed(limit=900) == {200: 60}
        # Of 80 places, each takes one, and another one for each thousand entries.
        assert listed(limit=3000).keys() == {200, 429}
