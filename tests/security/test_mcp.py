"""`/mcp` is no way around anything: roles, tenants, rates, bounds and rights hold as on `/v1`.

The tools themselves say what there is to try: a new one fails here until somebody has decided who
may call it, and how to make another tenant's value for what it takes.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from mcp import Client, MCPError

from runner.api.mcp.tools import TOOLS
from runner.base.rates import Rate, RateLimits
from runner.words.principal import Role, Tier
from tests.support.deployment import NO_POOL, Deployment, bearing, deployment, eventually
from tests.support.mcp import over_http, said
from tests.support.routes import UNKNOWN_ID

OWNER, ADMIN, DEVELOPER, VIEWER = Role
MAKERS = {OWNER, ADMIN, DEVELOPER}
ALL = {*MAKERS, VIEWER}
PROMISED: Mapping[str, set[Role]] = {
    "run_code": MAKERS,
    "create_sandbox": MAKERS,
    "list_sandboxes": ALL,
    "kill_sandbox": MAKERS,
    "run_command": MAKERS,
    "read_file": MAKERS,
    "write_file": MAKERS,
    "list_files": MAKERS,
    "get_execution": ALL,
    "read_artifact": ALL,
}
GIVEN: Mapping[str, Any] = {
    "sandbox_id": UNKNOWN_ID,
    "execution_id": UNKNOWN_ID,
    "path": "a.txt",
    "code": "1",
    "command": "true",
    "content": "x",
}
"""A value for each argument that a tool needs."""
CANARY = "canary-of-theirs"
BURST = 8
PAGE = "https://page.example"
ACCEPT = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


def arguments(name: str, **others: object) -> dict[str, Any]:
    """Return arguments with which a tool can be called; by default, for ids that nobody has."""
    schema = TOOLS[name].schema
    needed = {*schema.get("required", ()), *({"sandbox_id"} & schema["properties"].keys())}
    given = {each: GIVEN[each] for each in needed}
    if name == "create_sandbox":
        given["image"] = "nobodys"  # Nothing shall be made.
    return {**given, **{each: value for each, value in others.items() if each in given}}


def post(client: httpx.Client, method: str, **params: Any) -> httpx.Response:
    """Send one request of the protocol by hand."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return client.post("/mcp", json=body, headers=ACCEPT)


def answer(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON-RPC message of an answer, which may be an event."""
    text = response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        text = re.findall(r"^data: (.*)$", text, re.MULTILINE)[-1]
    found: dict[str, Any] = json.loads(text)
    return found


async def called(client: Client, name: str, **others: object) -> str:
    """Call a tool and return what it said."""
    return said(await client.call_tool(name, arguments(name, **others)))


def test_every_tool_has_a_row() -> None:
    assert TOOLS.keys() == PROMISED.keys()


async def broken(client: Client, role: Role) -> list[str]:
    """Call every tool, and return where the server does not do what was promised to the role."""
    wrong = []
    listed = {each.name for each in (await client.list_tools()).tools}
    for name, roles in PROMISED.items():
        refused = "lacks the permission" in await called(client, name)
        if refused is (role in roles) or (name in listed) is refused:
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("role", Role)
async def test_a_role_sees_and_calls_what_was_promised(shared: Deployment, role: Role) -> None:
    async with over_http(shared, shared.key("mcp-roles", role)) as client:
        assert await broken(client, role) == []


async def test_the_probe_sees_a_tool_that_lost_its_check(shared: Deployment) -> None:
    """The control: an owner in a viewer's place may do what a viewer must not."""
    async with over_http(shared, shared.key("mcp-roles")) as client:
        kept_out = [name for name, roles in PROMISED.items() if VIEWER not in roles]
        assert await broken(client, VIEWER) == kept_out
        assert len(kept_out) >= 7


async def test_a_refused_call_is_on_record(shared: Deployment) -> None:
    async with over_http(shared, shared.key("mcp-audit", VIEWER)) as client:
        await called(client, "run_command")
    records = shared.client("mcp-audit").audit(action="access:denied")["items"]
    (record,) = (each["record"] for each in records)
    assert record["metadata"]["permission"] == "sandbox:use"
    assert record["metadata"]["route"] == "/mcp"


async def test_a_key_of_few_permissions_sees_their_tools(shared: Deployment) -> None:
    """Code that runs once needs the permissions to submit and to read as well."""
    owner = shared.http("mcp-few")
    asked = {"name": "few", "role": "owner", "permissions": ["sandbox:use"]}
    key = owner.post("/v1/keys", json=asked).json()["token"]
    async with over_http(shared, key) as client:
        listed = {each.name for each in (await client.list_tools()).tools}
        assert listed == {"run_code", "run_command", "read_file", "write_file", "list_files"}
        once = said(await client.call_tool("run_code", {"code": "1"}))
        assert once.startswith("this key lacks the permission execution:create")
    asked = {**asked, "name": "blind", "permissions": ["sandbox:use", "execution:create"]}
    key = owner.post("/v1/keys", json=asked).json()["token"]
    async with over_http(shared, key) as client:
        once = said(await client.call_tool("run_code", {"code": "1"}))
        assert once.startswith("this key lacks the permission execution:read")


async def test_what_is_another_tenants_is_as_unknown_as_any(shared: Deployment) -> None:
    """Each tool that takes an id says the same of theirs and of nobody's, and changes nothing."""
    theirs = shared.client("mcp-theirs")
    ran = theirs.run(command=["sh", "-c", f"echo {CANARY} > a.txt"])
    with theirs.sandboxes.create(size="nano", metadata={"of": CANARY}) as sandbox:
        sandbox.files.write("a.txt", CANARY)
        ids = {"sandbox_id": sandbox.id, "execution_id": ran.id}
        taking = [name for name in TOOLS if {"sandbox_id", "execution_id"} & arguments(name).keys()]
        assert len(taking) >= 8

        async def told(client: Client) -> list[str]:
            return [await called(client, name, **ids) for name in taking]

        async with over_http(shared, shared.key("mcp-ours")) as ours:
            unknown = [await called(ours, name) for name in taking]
            assert await told(ours) == unknown
            assert all(re.match("no such (sandbox|execution|artifact)", each) for each in unknown)
            assert CANARY not in await called(ours, "list_sandboxes")
        assert sandbox.refresh().state == "running"
        assert sandbox.files.read("a.txt") == CANARY.encode()
        # The control: for their own tenant, each route answers something else.
        async with over_http(shared, shared.key("mcp-theirs")) as own:
            pairs = zip(await told(own), unknown, strict=True)
            assert [mine for mine, nobodys in pairs if mine == nobodys] == []


async def test_a_suspended_tenant_sees_tools_that_read(shared: Deployment) -> None:
    key = shared.key("mcp-suspended")
    shared.sql("UPDATE tenants SET suspended_at = now(), suspended_why = 'test' "
               "WHERE name = 'mcp-suspended'")  # fmt: skip
    async with over_http(shared, key) as client:
        listed = {each.name for each in (await client.list_tools()).tools}
        assert listed == {"list_sandboxes", "get_execution", "read_artifact"} | {
            name for name in listed if TOOLS[name].permission.only_reads
        }
        assert (await called(client, "run_code")).startswith("this tenant is suspended")


@pytest.fixture(scope="module")
def limited(image: None) -> Iterator[Deployment]:
    """Return a deployment with narrow rates, whose operator permits one page's origin."""
    narrow = RateLimits(enterprise=Rate(per_minute=7, burst=BURST))
    with deployment(rate_limits=narrow, cors_origins=(PAGE,), **NO_POOL) as made:
        yield made


async def test_a_tool_is_counted_as_the_route_that_does_the_same(limited: Deployment) -> None:
    """A sandbox is not made more often through here than at `/v1`; using one has its own rate."""
    key = limited.key("mcp-rates", tier=Tier.ENTERPRISE)
    async with over_http(limited, key) as client:
        made = [await called(client, "create_sandbox") for _ in range(BURST + 1)]
        assert all("there is no image 'nobodys'" in each for each in made[:BURST])
        assert made[BURST].startswith("the rate of this key or user for submit requests is used up")
        assert re.search(r"Try again in \d+ s\.$", made[BURST])
        # The control: what is not counted again passes, though it came later.
        assert await called(client, "run_command") == "no such sandbox."
    with bearing(limited.url, key) as plain:
        refused = plain.post("/v1/sandboxes", json={"image": "nobodys"})
    assert refused.status_code == 429, "both doors count together"


def test_only_pages_that_the_operator_permits_may_call(limited: Deployment) -> None:
    """A name that was made to point here (DNS rebinding) is in `Host` and `Origin` alike."""
    with bearing(limited.url, limited.key("mcp-pages", tier=Tier.PRO)) as client:
        for elsewhere in ("https://evil.example", limited.url, "null"):
            client.headers["Origin"] = elsewhere
            refused = post(client, "tools/list")
            assert refused.status_code == 403, elsewhere
            assert "RUNNER_CORS_ORIGINS" in refused.json()["detail"]
        client.headers.update({"Origin": "http://evil.example", "Host": "evil.example"})
        assert post(client, "tools/list").status_code == 403
        del client.headers["Host"]
        client.headers["Origin"] = PAGE
        assert post(client, "tools/list").status_code == 200, "the control"


def test_nobody_calls_without_a_key(shared: Deployment) -> None:
    with httpx.Client(base_url=shared.url) as nobody:
        operator = shared.operator()
        for client in (nobody, operator):
            refused = post(client, "tools/list")
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        # No session exists that a stream could belong to, or that could be ended.
        with bearing(shared.url, shared.key("mcp-methods")) as client:
            assert client.get("/mcp", headers=ACCEPT).status_code == 405
            assert client.delete("/mcp").status_code == 405


MALFORMED: Mapping[str, tuple[bytes, int]] = {
    "not JSON": (b"{", 400),
    "empty": (b"", 400),
    "a list": (b"[]", 400),
    "a batch": (b'[{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}]', 400),
    "no method": (b'{"jsonrpc": "2.0", "id": 1}', 400),
    "deep nesting": (b"[" * 100_000, 400),
    "a key twice": (b'{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "ping"}', 400),
    "NaN": (b'{"jsonrpc": "2.0", "id": NaN, "method": "ping"}', 400),
    "a lone surrogate": (
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": '
        b'{"name": "run_code", "arguments": {"code": "\\ud800"}}}',
        400,
    ),
    "too large": (b'"' + b"x" * (17 * 2**20) + b'"', 413),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_refused(shared: Deployment, name: str) -> None:
    body, status = MALFORMED[name]
    with bearing(shared.url, shared.key("mcp-malformed")) as client:
        for more in ({}, {"Mcp-Protocol-Version": "2026-07-28"}):
            try:
                refused = client.post("/mcp", content=body, headers={**ACCEPT, **more})
            except httpx.WriteError:
                continue  # The server answered and closed while we were still sending.
            assert refused.status_code == status, refused.text
            assert "Traceback" not in refused.text


def test_a_request_that_is_too_large_for_a_tool_says_what_to_do(shared: Deployment) -> None:
    """The length may be declared or not; the control is a request of nearly that size."""
    with bearing(shared.url, shared.key("mcp-large")) as client:
        for size, status in ((3 * 2**20, 200), (5 * 2**20, 413)):
            given = {**arguments("write_file"), "content": "x" * size}
            sent = post(client, "tools/call", name="write_file", arguments=given)
            assert sent.status_code == status
            pieces = (each for each in [sent.request.content])
            again = client.post("/mcp", content=pieces, headers=ACCEPT)
            assert again.status_code == status
        assert "PUT /v1/sandboxes/{id}/files/content" in sent.json()["detail"]


WRONG: Mapping[str, tuple[str, object, str]] = {
    "no arguments": ("run_command", {}, "sandbox_id: Field required; command: Field required"),
    "an unknown argument": ("list_sandboxes", {"tenant_id": "x"}, "tenant_id: unknown field"),
    "a number for text": ("run_code", {"code": 7}, "code: Input should be a valid string"),
    "text for a number": ("run_command", {**arguments("run_command"), "timeout_s": "9"}, "timeout"),
    "too long": ("run_code", {"code": "x" * 600_000}, "at most 524288"),
    "an unknown language": ("run_code", {"code": "1", "language": "cobol"}, "language: Input"),
    "NUL": ("run_code", {"code": "a\0b"}, "code: must not contain NUL"),
    "a time without end": ("create_sandbox", {"timeout_s": 1e308}, "timeout_s: Input should be"),
    "a rule that the tenant may not have": ("create_sandbox", {"egress": ["*"]}, "egress"),
    "bad base64": ("write_file", {**arguments("write_file"), "encoding": "base64", "content": "!"},
                   "content: it is not base64"),
    "a restart of what runs once": ("run_code", {"code": "1", "restart": True}, "restart: "),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_told_so(shared: Deployment, name: str) -> None:
    """The error names the argument and what is wrong with it; nothing was done."""
    tool, given, expected = WRONG[name]
    with bearing(shared.url, shared.key("mcp-wrong")) as client:
        text = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                           "params": {"name": tool, "arguments": given}})  # fmt: skip
        result = answer(client.post("/mcp", content=text, headers=ACCEPT))["result"]
    assert result["isError"] is True
    (content,) = result["content"]
    assert expected in content["text"]
    assert len(content["text"]) < 1000


async def test_an_unknown_tool_is_no_tools_failure(shared: Deployment) -> None:
    """Nor are arguments that are no object: the protocol has its own errors for these."""
    async with over_http(shared, shared.key("mcp-wrong")) as client:
        with pytest.raises(MCPError, match="there is no such tool; there are run_code, "):
            await client.call_tool("format_disk", {})
    with bearing(shared.url, shared.key("mcp-wrong")) as plain:
        answered = post(plain, "tools/call", name="run_code", arguments=[1])
        assert answer(answered)["error"]["code"] == -32602


def test_a_call_ends_with_its_right(shared: Deployment) -> None:
    """A revoked key's call is cut off within seconds, and what it ran is killed."""
    owner, api = shared.http("mcp-revoked"), shared.client("mcp-revoked")
    made = owner.post("/v1/keys", json={"name": "to be revoked", "role": "developer"}).json()
    params = {"name": "run_command", "arguments": {"command": "sleep 600", "timeout_s": 900}}
    with api.sandboxes.create(size="nano") as sandbox, bearing(shared.url, made["token"]) as client:
        params["arguments"]["sandbox_id"] = sandbox.id  # type: ignore[index]
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        with client.stream("POST", "/mcp", json=body, headers=ACCEPT) as response:
            eventually(lambda: [e for e in sandbox.processes() if e.state == "running"])
            assert owner.delete(f"/v1/keys/{made['key']['id']}").is_success
            with pytest.raises(httpx.RemoteProtocolError):
                response.read()
        eventually(lambda: not [e for e in sandbox.processes() if e.state == "running"])
