"""The console of a deployment's operators, in Chromium."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from runner.door.identity import AUTHORITY, make_authority
from runner.words.principal import Role
from tests.e2e.console.conftest import TENANT
from tests.e2e.console.test_console import HOSTILE, MARKUP, places
from tests.support.browser import NARROW, WIDE, Visitor, violations, visitor
from tests.support.deployment import PATIENCE_S, Deployment, bearing
from tests.support.people import OperatingPerson, Person

expect.set_options(timeout=PATIENCE_S * 1000)

CONSOLE = "/console/operator"
TENANTS = "/operator/v1/tenants"
WRONG_KEY = f"ro_aaaaaaaaaaaa_{'A' * 43}"
BAD_NODE = "hostile-node"


@pytest.fixture(scope="module")
def ops(world: Deployment) -> OperatingPerson:
    """Return an operator who has logged in."""
    return OperatingPerson(world)


@pytest.fixture
def operate(
    world: Deployment, browser: Browser, ops: OperatingPerson
) -> Iterator[Callable[..., Visitor]]:
    """Return a function that opens a window for an operator."""
    with ExitStack() as windows:

        def opened(**options: Any) -> Visitor:
            made = visitor(browser, world.url, ops, console=CONSOLE, **options)
            return windows.enter_context(made)

        yield opened


def confirm(page: Page, name: str) -> None:
    """Press a button that asks first, and confirm."""
    page.get_by_role("button", name=name, exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=name).click()


def test_an_operator_logs_in_and_out_by_keyboard_alone(
    world: Deployment, browser: Browser, ops: OperatingPerson
) -> None:
    """The page and the browser keep the key nowhere, and no script can read the session."""
    with visitor(browser, world.url, console=CONSOLE) as somebody:
        page = somebody.open()
        expect(page.get_by_label("Operator's key")).to_be_focused()
        page.keyboard.type(WRONG_KEY)
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("a valid operator's key is needed")
        expect(page.get_by_label("Operator's key")).to_have_value("")
        page.get_by_label("Operator's key").focus()
        page.keyboard.type(ops.key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Overview")).to_be_focused()
        expect(page.locator(".who")).to_contain_text(ops.prefix)
        assert page.evaluate("() => document.cookie") == ""
        assert page.evaluate("() => localStorage.length + sessionStorage.length") == 0
        assert ops.key not in page.content()
        page.reload()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.get_by_role("button", name="Log out").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_label("Operator's key")).to_be_visible()
        page.reload()
        expect(page.get_by_label("Operator's key")).to_be_visible()


def test_the_sessions_of_both_consoles_are_apart(
    world: Deployment,
    browser: Browser,
    people: dict[Role, Person],
    ops: OperatingPerson,
) -> None:
    """An owner is a stranger to the operators' console, and an operator to the tenants'.

    The control is that each is served in their own.
    """
    shown = {"/console": "E-mail", CONSOLE: "Operator's key"}
    for person, own in ((people[Role.OWNER], "/console"), (ops, CONSOLE)):
        for console, asked in shown.items():
            with visitor(browser, world.url, person, console=console) as somebody:
                page = somebody.open()
                inside = page.get_by_role("navigation", name="Pages")
                if console == own:
                    expect(inside).to_be_visible()
                else:
                    expect(page.get_by_label(asked)).to_be_visible()
                    expect(inside).to_have_count(0)
    with visitor(browser, world.url, console=CONSOLE) as somebody:
        page = somebody.open("tenants")
        page.get_by_label("Operator's key").fill(world.key(TENANT))
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("a valid operator's key is needed")


def test_a_key_that_is_revoked_leads_back_to_the_login(world: Deployment, browser: Browser) -> None:
    """The page notices by itself, as it asks every few seconds."""
    leaver = OperatingPerson(world)
    with visitor(browser, world.url, leaver, console=CONSOLE) as somebody:
        page = somebody.open()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        command = [sys.executable, "-m", "runner", "operators", "revoke", leaver.prefix]
        environment = {
            "PATH": "/usr/bin:/bin",
            "RUNNER_STATE_DIR": str(world.stack.settings.state_dir),
            "RUNNER_DATABASE_OWNER_URL": world.stack.services.owner_url,
        }
        subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True)
        expect(page.get_by_role("status")).to_contain_text("Your session has ended")


def test_the_overview_follows_queue_nodes_and_health(
    world: Deployment, operate: Callable[..., Visitor]
) -> None:
    """Nobody has to reload it; `Pause` stops it."""
    client = world.client("watched", max_concurrency=1)
    page = operate().open()
    expect(page.locator(".notice.good")).to_contain_text("Nothing needs you now")
    expect(page.locator(".facts").first).to_contain_text("PostgreSQL")
    made = [client.submit(command=["sleep", "600"], size="nano") for _ in range(3)]
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="watched"))
    expect(row).to_contain_text("1 of 1")
    expect(row.get_by_role("cell").nth(2)).to_have_text("2")
    page.get_by_role("button", name="Pause").click()
    for each in made:
        client.cancel(each.id)
    page.wait_for_timeout(7_000)
    expect(row.get_by_role("cell").nth(2)).to_have_text("2")
    page.get_by_role("button", name="Pause").click()
    expect(row.get_by_role("cell").nth(2)).to_have_text("0")
    (node,) = world.sql("SELECT node FROM nodes")
    expect(page.get_by_role("link", name=node["node"])).to_be_visible()


def test_what_strangers_and_nodes_say_is_text_and_nothing_else(
    world: Deployment, ops: OperatingPerson, operate: Callable[..., Visitor]
) -> None:
    """A node's zone, door and fault, the reason of a suspension, and a stranger's user agent."""
    columns = [
        each["column_name"]
        for each in world.sql(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'nodes' "
            "AND column_name NOT IN ('node', 'zone', 'door', 'fault', 'state')"
        )
    ]
    named = ", ".join(columns)
    world.sql(
        f"INSERT INTO nodes (node, zone, door, fault, state, {named}) "  # noqa: S608 - of the schema
        f"SELECT %s, %s, %s, %s, 'draining', {named} FROM nodes LIMIT 1",
        BAD_NODE, MARKUP, MARKUP, HOSTILE,
    )  # fmt: skip
    made = ops.http.post(TENANTS, json={"name": "hostile"}).json()["tenant_id"]
    assert ops.http.post(f"{TENANTS}/{made}/suspend", json={"why": HOSTILE}).is_success
    httpx.get(
        f"{world.url}{TENANTS}",
        headers={"Authorization": f"Bearer {WRONG_KEY}", "User-Agent": MARKUP},
    )
    page = operate().open()
    try:
        expect(page.locator(".notice.bad")).to_contain_text(MARKUP)
        page.get_by_role("link", name=BAD_NODE).click()
        for text in (MARKUP, "␛[2J␛[31mred␛]0;title␇", "user⟨U+202E⟩txt.exe"):
            expect(page.locator("main")).to_contain_text(text)
    finally:
        world.sql("DELETE FROM nodes WHERE node = %s", BAD_NODE)
    page = operate().open(f"tenants/{made}")
    expect(page.locator("main")).to_contain_text(MARKUP)
    expect(page.locator("main")).to_contain_text("user⟨U+202E⟩txt.exe")
    page = operate().open("audit?action=authentication%3Averify")
    page.get_by_role("button", name="Show record").first.click()
    expect(page.locator("pre")).to_contain_text("onerror=hacked=1")
    assert page.locator("main :is(script, img, svg, iframe)").count() == 0


def test_a_node_is_drained_and_resumed(world: Deployment, operate: Callable[..., Visitor]) -> None:
    page = operate().open("nodes")
    page.get_by_role("table").get_by_role("link").first.click()
    state = page.locator(".facts").first
    confirm(page, "Drain")
    expect(state).to_contain_text("no: it drains")
    page.get_by_role("button", name="Resume").click()
    expect(state).not_to_contain_text("no: it drains")
    expect(page.get_by_role("button", name="Drain", exact=True)).to_be_visible()
    assert world.client(TENANT).run(command=["true"], size="nano").state == "succeeded"


def test_a_node_at_work_is_not_removed(
    world: Deployment, ops: OperatingPerson, operate: Callable[..., Visitor]
) -> None:
    """The console offers it for a node that drains; the API refuses it if that holds something."""
    client = world.client(TENANT)
    busy = client.submit(command=["sleep", "600"], size="nano")
    page = operate().open("nodes")
    page.get_by_role("table").get_by_role("link").first.click()
    held = page.get_by_role("cell", name=busy.id)
    expect(held).to_be_visible()
    expect(page.get_by_role("button", name="Remove")).to_have_count(0)
    confirm(page, "Drain")
    confirm(page, "Remove")
    expect(page.get_by_role("alert")).to_contain_text("still holds executions or sandboxes")
    client.cancel(busy.id)
    page.get_by_role("button", name="Resume").click()
    expect(held).to_have_count(0)


def test_a_host_is_invited_with_a_token_that_is_shown_once(
    world: Deployment, operate: Callable[..., Visitor], tmp_path: Any
) -> None:
    page = operate().open("invitations")
    page.get_by_label("Node").fill("host-2")
    page.get_by_role("button", name="Invite a host").click()
    expect(page.get_by_role("alert")).to_contain_text(AUTHORITY)
    make_authority(tmp_path)
    folder = world.stack.settings.door_certificates
    folder.mkdir(exist_ok=True)
    (folder / AUTHORITY).write_bytes((tmp_path / AUTHORITY).read_bytes())
    try:
        page.get_by_role("button", name="Invite a host").click()
        token = page.locator(".once").inner_text()
    finally:
        (folder / AUTHORITY).unlink()
    assert len(token) > 40
    row = page.get_by_role("row").filter(has_text="host-2")
    expect(row).to_contain_text("open")
    page.reload()
    expect(row).to_be_visible()
    expect(page.locator(".once")).to_have_count(0)
    assert token not in page.content()
    page.get_by_role("button", name="Revoke host-2").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_contain_text("revoked")


def test_a_tenant_is_made_found_changed_and_suspended(
    world: Deployment, operate: Callable[..., Visitor]
) -> None:
    page = operate().open("tenants")
    page.get_by_label("Name", exact=True).fill("new-customer")
    page.get_by_role("button", name="Make a tenant").click()
    token = page.locator(".once").inner_text()
    page.get_by_label("Part of the name").fill("w-custom")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="new-customer").click()
    expect(page.get_by_role("heading", name="Tenant new-customer")).to_be_visible()
    terms = page.locator(".facts").first
    page.get_by_label("Tier").select_option("pro")
    page.get_by_label("Executions at once").fill("3")
    page.get_by_label("Own quotas").fill("queued=7\nmax_size=small")
    page.get_by_role("button", name="Change", exact=True).click()
    expect(terms).to_contain_text("queued 7, max size small")
    expect(terms).to_contain_text("pro")
    expect(page.locator(".quotas")).to_contain_text("of 3")
    page.get_by_label("Own quotas").fill("queue=7")
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("there is no quota 'queue'")
    with bearing(world.url, token) as tenant:
        body = {"command": ["true"], "size": "nano"}
        assert tenant.post("/v1/executions", json=body).is_success
        page.get_by_label("Reason").fill("unpaid since June")
        page.get_by_role("button", name="Suspend", exact=True).click()
        expect(page.get_by_text("unpaid since June")).to_be_visible()
        assert tenant.post("/v1/executions", json=body).status_code == 403
        page.get_by_role("button", name="End the suspension").click()
        expect(page.get_by_label("Reason")).to_be_visible()
        assert tenant.post("/v1/executions", json=body).is_success
    page.get_by_role("button", name="Make a key").click()
    with bearing(world.url, page.locator(".once").inner_text()) as again:
        assert again.get("/v1/me").json()["tenant"] == "new-customer"


def test_ten_thousand_tenants_are_read_page_by_page_and_searched(
    world: Deployment, operate: Callable[..., Visitor]
) -> None:
    columns = [
        each["column_name"]
        for each in world.sql(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'tenants' "
            "AND column_name NOT IN ('tenant_id', 'name')"
        )
    ]
    named = ", ".join(columns)
    world.client(TENANT)
    world.sql(
        f"INSERT INTO tenants (tenant_id, name, {named}) "  # noqa: S608 - of the schema
        f"SELECT gen_random_uuid(), 'many-' || lpad(n::text, 5, '0'), {named} "
        "FROM tenants, generate_series(1, 10000) n WHERE name = %s",
        TENANT,
    )
    page = operate().open("tenants?name=many")
    rows = page.get_by_role("row")
    expect(rows).to_have_count(51)
    expect(rows.nth(1)).to_contain_text("many-00001")
    page.get_by_role("button", name="Next").click()
    expect(rows.nth(1)).to_contain_text("many-00051")
    page.get_by_label("Part of the name").fill("y-09999")
    page.keyboard.press("Enter")
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_contain_text("many-09999")
    world.sql("DELETE FROM tenants WHERE starts_with(name, %s)", "many-")


def test_the_deployments_log_is_verified_searched_and_exported(
    operate: Callable[..., Visitor],
) -> None:
    page = operate().open("audit")
    page.get_by_role("button", name="Verify the whole log").click()
    expect(page.locator(".notice.good")).to_contain_text("Intact")
    page.get_by_label("Action").fill("authentication:login")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**action=authentication*")
    expect(page.get_by_role("cell", name="operator:").first).to_be_visible()
    with page.expect_download() as saved:
        page.get_by_role("link", name="Export what was found").click()
    assert saved.value.suggested_filename.endswith(".ndjson")


def test_a_log_that_was_changed_is_said_to_be(
    world: Deployment, operate: Callable[..., Visitor]
) -> None:
    """The control of the test above: somebody with the database has rewritten a record."""
    where = "WHERE tenant_id = '00000000-0000-0000-0000-000000000000' AND seq = 1"
    (before,) = world.sql(f"SELECT body FROM audit_events {where}")  # noqa: S608
    rewrite = f"UPDATE audit_events SET body = %s {where}"  # noqa: S608
    world.sql("ALTER TABLE audit_events DISABLE TRIGGER USER")
    try:
        world.sql(rewrite, before["body"].replace("success", "failure"))
        page = operate().open("audit")
        page.get_by_role("button", name="Verify the whole log").click()
        expect(page.locator(".notice.bad")).to_contain_text("Not intact")
    finally:
        world.sql(rewrite, before["body"])
        world.sql("ALTER TABLE audit_events ENABLE TRIGGER USER")


@pytest.mark.parametrize(
    ("window", "scheme"),
    [
        pytest.param(WIDE, "light", id="wide-light"),
        pytest.param(NARROW, "dark", id="narrow-dark"),
        pytest.param(WIDE, "dark", id="wide-dark", marks=pytest.mark.matrix),
        pytest.param(NARROW, "light", id="narrow-light", marks=pytest.mark.matrix),
    ],
)
def test_every_page_can_be_used_by_everybody(
    ops: OperatingPerson, operate: Callable[..., Visitor], window: Any, scheme: str
) -> None:
    """axe-core finds nothing serious, no page is wider than its window, and nothing is refused."""
    somebody = operate(viewport=window, color_scheme=scheme)
    page = somebody.open()
    (node,) = ops.http.get("/operator/v1/nodes").json()["items"]
    tenant = ops.http.get(TENANTS).json()["items"][0]
    own = [f"nodes/{node['node']}", f"tenants/{tenant['id']}", "none"]
    for place in [*places(page), *own]:
        somebody.open(place)
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        page.wait_for_load_state("networkidle")
        assert violations(page) == [], place
        wider = "() => document.documentElement.scrollWidth - innerWidth"
        assert page.evaluate(wider) <= 0, place
    assert somebody.refused == []


def test_a_signed_out_visitor_finds_a_page_that_everybody_can_use(
    world: Deployment, browser: Browser
) -> None:
    with visitor(browser, world.url, console=CONSOLE, viewport=NARROW) as somebody:
        page = somebody.open()
        expect(page.get_by_label("Operator's key")).to_be_visible()
        assert violations(page) == []
