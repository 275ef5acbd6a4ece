"""The console's pages for a tenant's own things, in Chromium: what people make, find and end."""

from collections.abc import Callable

import httpx
from playwright.sync_api import Browser, expect

from runner.words.principal import Role
from tests.e2e.console.conftest import TENANT
from tests.support.browser import Visitor, visitor
from tests.support.deployment import PATIENCE_S, Deployment
from tests.support.people import PASSWORD

expect.set_options(timeout=PATIENCE_S * 1000)


def test_a_key_is_shown_once_works_and_is_revoked(
    world: Deployment, visit: Callable[..., Visitor]
) -> None:
    page = visit(Role.ADMIN).open("keys")
    page.get_by_label("Name").fill("from the console")
    page.get_by_label("Role").select_option("viewer")
    page.get_by_role("button", name="Make a key").click()
    token = page.locator(".once").inner_text()
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{world.url}/v1/me", headers=headers).json()["role"] == "viewer"
    page.get_by_role("button", name="Revoke from the console").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    row = page.get_by_role("row").filter(has_text="from the console")
    expect(row).to_contain_text("revoked")
    assert httpx.get(f"{world.url}/v1/me", headers=headers).status_code == 401
    page.reload()
    expect(row).to_be_visible()
    expect(page.locator(".once")).to_have_count(0)


def test_usage_counts_what_living_sandboxes_used_once(
    world: Deployment, visit: Callable[..., Visitor]
) -> None:
    """It is a part of the sums, and not something beside them."""
    client = world.client(TENANT)
    with client.sandboxes.create(size="nano") as sandbox:
        sandbox.run(language="python", code="import time\nwhile time.process_time() < 2: pass")
    total = client.usage()["total"]
    assert total["sandbox_cpu_s"] > total["cpu_s"] / 2
    page = visit().open("usage")
    shown = page.locator("dl", has_text="Processor time")
    expect(shown).to_contain_text(f"{total['cpu_s']:.1f} s")
    expect(shown).to_contain_text(f"{total['memory_gib_s']:,.1f}".removesuffix(".0"))


def test_keys_and_projects_beyond_the_first_page_are_reached(
    world: Deployment, visit: Callable[..., Visitor]
) -> None:
    """Otherwise an old key could not be revoked."""
    owner = world.http(TENANT)
    for number in range(51):
        for kind, body in (("keys", {"name": f"k{number}", "role": "viewer"}),
                           ("projects", {"name": f"p{number}"})):  # fmt: skip
            assert owner.post(f"/v1/{kind}", json=body).status_code == 201
    shown = visit(Role.ADMIN)
    for kind, first in (("keys", "k0"), ("projects", "p9")):
        page = shown.open(kind)
        cell = page.get_by_role("cell", name=first, exact=True)
        expect(page.get_by_text("Page 1")).to_be_visible()
        expect(cell).to_have_count(0)
        page.get_by_role("button", name="Next").click()
        expect(cell).to_be_visible()


def test_somebody_who_is_invited_accepts_and_logs_in(
    world: Deployment, browser: Browser, visit: Callable[..., Visitor]
) -> None:
    page = visit(Role.OWNER).open("members")
    page.get_by_label("E-mail").fill("new@example.com")
    page.get_by_role("button", name="Invite somebody").click()
    token = page.locator(".once").inner_text()
    with visitor(browser, world.url) as invited:
        theirs = invited.open("accept")
        theirs.get_by_role("textbox", name="Token").fill(token)
        theirs.get_by_label("Password").fill(PASSWORD)
        theirs.get_by_role("button", name="Accept").click()
        expect(theirs.get_by_role("status")).to_contain_text("You can log in now")
        theirs.get_by_role("link", name="Log in").click()
        theirs.get_by_label("E-mail").fill("new@example.com")
        theirs.get_by_label("Password").fill(PASSWORD)
        theirs.keyboard.press("Enter")
        expect(theirs.get_by_role("heading", name="Overview")).to_be_visible()
        page.reload()
        with page.expect_response(lambda told: told.request.method == "PATCH") as changed:
            page.get_by_label("Role of new@example.com").select_option("viewer")
        assert changed.value.ok
        theirs.reload()
        expect(theirs.locator(".who")).to_contain_text("viewer")
        page.get_by_role("button", name="Remove new@example.com").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(page.get_by_role("row").filter(has_text="new@example.com")).to_have_count(0)
        theirs.reload()
        expect(theirs.get_by_label("E-mail")).to_be_visible()


def test_a_secret_is_stored_and_never_shown_again(visit: Callable[..., Visitor]) -> None:
    page = visit(Role.ADMIN).open("secrets")
    page.get_by_label("Name").fill("token-of-theirs")
    page.get_by_label("Value").fill("never shown again")
    page.get_by_role("button", name="Store a secret").click()
    expect(page.get_by_role("row").filter(has_text="token-of-theirs")).to_be_visible()
    assert "never shown again" not in page.content()
    assert page.get_by_label("Value").input_value() == ""


def test_a_refusal_says_what_to_mend_and_keeps_what_was_typed(
    visit: Callable[..., Visitor],
) -> None:
    page = visit(Role.ADMIN).open("egress")
    page.get_by_label("Name").fill("wrong")
    page.get_by_label("Rules").fill("not a host!")
    page.get_by_role("button", name="Write a policy").click()
    expect(page.get_by_role("alert")).to_contain_text("not an egress rule")
    expect(page.get_by_label("Rules")).to_have_value("not a host!")


def test_the_audit_log_is_verified_searched_and_exported(visit: Callable[..., Visitor]) -> None:
    page = visit(Role.ADMIN).open("audit")
    page.get_by_role("button", name="Verify the whole log").click()
    expect(page.locator(".notice.good")).to_contain_text("Intact")
    page.get_by_label("Action").fill("auth:login")
    page.get_by_label("Outcome").select_option("success")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**action=auth*")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Export").click()
    assert saved.value.suggested_filename.endswith(".ndjson")
