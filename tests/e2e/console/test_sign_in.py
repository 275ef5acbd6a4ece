"""Signing in to the console at an identity provider, in Chromium, across sites.

The console is at `localhost` and the provider at `127.0.0.1`: two sites, so the browser keeps
cookies that are `SameSite=Strict` from everything that the provider leads to.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.support import browser as browsers
from tests.support.browser import violations, visitor
from tests.support.deployment import PATIENCE_S, Deployment
from tests.support.openid import SigningIn, at_provider, signing_in
from tests.support.people import PASSWORD

expect.set_options(timeout=PATIENCE_S * 1000)

BUTTON = "Sign in with Example SSO"


@pytest.fixture(scope="module")
def signing(image: None) -> Iterator[SigningIn]:
    """Return a deployment with the console, whose people sign in at a provider."""
    browsers.build()
    with signing_in("localhost", oidc_name="Example SSO") as made:
        made.openid.asks = True
        made.member("acme", "ada")
        yield made


@pytest.fixture
def url(signing: SigningIn) -> str:
    """Return the address at which the browser visits the console."""
    return signing.openid.callback.partition("/v1/")[0]


def test_a_person_signs_in_at_the_provider_and_out_here(
    signing: SigningIn, browser: Browser, url: str
) -> None:
    """They end on the page that they wanted, with a session that no script can read."""
    signing.openid.subject = "subject-of-ada"
    with visitor(browser, url) as somebody:
        page = somebody.open("executions?state=failed")
        expect(page.get_by_label("E-mail")).to_be_focused()
        expect(page.get_by_role("button", name=BUTTON)).to_be_visible()
        assert violations(page) == []
        page.get_by_role("button", name=BUTTON).press("Enter")
        page.get_by_role("link", name="Continue as Ada").click()
        expect(page.get_by_role("heading", name="Executions")).to_be_focused()
        assert page.url == f"{url}/console#/executions?state=failed"
        expect(page.get_by_text("ada@example.com")).to_be_visible()
        assert page.evaluate("() => document.cookie") == ""
        (cookie,) = somebody.context.cookies()
        assert (cookie["name"], cookie["sameSite"]) == ("runner_session", "Strict")
        page.reload()
        expect(page.get_by_role("heading", name="Executions")).to_be_visible()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("button", name=BUTTON)).to_be_visible()
        assert somebody.context.cookies() == []


def test_whoever_is_not_let_in_reads_why_and_can_try_again(
    signing: SigningIn, browser: Browser, url: str
) -> None:
    """First they cancel, then they are no member; at last they use a password."""
    signing.openid.subject = "subject-of-nobody"
    with visitor(browser, url) as somebody:
        page = somebody.open("usage")
        page.get_by_role("button", name=BUTTON).click()
        page.get_by_role("link", name="Cancel").click()
        expect(page.get_by_role("status")).to_contain_text("declined")
        page.get_by_role("button", name=BUTTON).click()
        page.get_by_role("link", name="Continue as Ada").click()
        expect(page.get_by_role("status")).to_contain_text("you are no member here yet")
        assert violations(page) == []
        page.get_by_label("E-mail").fill("ada@example.com")
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_a_link_to_somebody_elses_sign_in_leads_to_the_login_page(
    signing: SigningIn, browser: Browser, url: str
) -> None:
    """Login CSRF in a browser: a page elsewhere links to the end of the attacker's sign-in."""
    signing.openid.asks = False
    lure = at_provider(signing.browser().begin())
    signing.openid.asks = True
    with visitor(browser, url) as victim:
        victim.page.goto(lure)
        expect(victim.page.get_by_role("status")).to_contain_text("begun in another browser")
        assert victim.context.cookies() == []


def test_a_wrong_address_leads_to_the_login_page(browser: Browser, url: str) -> None:
    """Whatever refuses a request before its route answers: nobody reads JSON."""
    with visitor(browser, url) as somebody:
        somebody.page.goto(f"{url}/v1/login/oidc?page=a&page=b")
        expect(somebody.page.get_by_role("status")).to_contain_text("address that led here")
        expect(somebody.page.get_by_label("E-mail")).to_be_focused()


def test_the_button_is_not_there_without_a_provider(world: Deployment, browser: Browser) -> None:
    with visitor(browser, world.url) as somebody:
        page = somebody.open()
        with page.expect_response("**/v1/login"):
            page.reload()
        expect(page.get_by_label("E-mail")).to_be_visible()
        assert page.get_by_role("button").all_inner_texts() == ["Log in"]
