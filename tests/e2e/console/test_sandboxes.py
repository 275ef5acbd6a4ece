"""The console's pages for sandboxes that live, in Chromium: terminals, files, ports, egress."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, Request, expect

from agent_runner import Sandbox
from runner.words.principal import Role
from tests.e2e.console.conftest import TENANT
from tests.support.browser import HACKED, NARROW, Visitor, violations
from tests.support.deployment import PATIENCE_S, Deployment, eventually

expect.set_options(timeout=PATIENCE_S * 1000)

MARKUP = f"<img src=x onerror={HACKED}=1>"
# A link, a title, and a write to the clipboard (xterm's control sequences, OSC 8, 0 and 52).
ESCAPES = r"\033]8;;https://evil.test\007link\033]8;;\007\033]0;taken\007\033]52;c;aGFja2Vk\007"
COLOURS = r"\033[38;2;10;200;30mtrue\033[0m \033[31mred\033[0m"


@pytest.fixture(scope="module")
def sandbox(world: Deployment) -> Iterator[Sandbox]:
    """Return a sandbox that these tests share."""
    with world.client(TENANT).sandboxes.create(timeout_s=600) as made:
        yield made


def typed(page: Page, line: str) -> None:
    """Type a line into the terminal that has the focus."""
    page.keyboard.type(line)
    page.keyboard.press("Enter")


def screen(page: Page) -> str:
    """Return what the terminal shows."""
    return page.locator(".xterm-rows").inner_text().replace("\xa0", " ")


def test_somebody_makes_a_sandbox_pauses_it_and_ends_it(visit: Callable[..., Visitor]) -> None:
    page = visit(Role.DEVELOPER).open("sandboxes/new")
    page.get_by_label("Seconds to live").fill("120")
    page.get_by_role("button", name="Make it").click()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="End", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="End").click()
    expect(page.locator(".facts").first).to_contain_text("ended")
    page.get_by_role("button", name="Read and check").click()
    expect(page.locator(".notice.good")).to_contain_text("Valid: signed by key")


def test_a_terminal_is_used_by_keyboard_and_goes_on_after_a_reload(
    visit: Callable[..., Visitor], sandbox: Sandbox
) -> None:
    page = visit(Role.DEVELOPER).open(f"sandboxes/{sandbox.id}/processes")
    page.get_by_role("button", name="Open a terminal").click()
    expect(page.get_by_text("connected")).to_be_visible()
    typed(page, "echo $((6 * 7))$COLUMNS; stty size")
    eventually(lambda: "42" in screen(page))
    page.reload()
    eventually(lambda: "42" in screen(page))
    page.keyboard.press("Shift+Escape")
    expect(page.get_by_role("button", name="Type into it")).to_be_focused()
    page.keyboard.press("Enter")
    typed(page, "exit 3")
    expect(page.get_by_text("ended with code 3")).to_be_visible()


def test_a_page_that_nobody_touches_does_not_keep_its_session_alive(
    world: Deployment, visit: Callable[..., Visitor], sandbox: Sandbox
) -> None:
    """It goes on asking, and says that nobody is there; the API then counts that as no use."""
    page = visit(Role.VIEWER).page
    page.clock.install()
    page.goto(f"{world.url}/console#/sandboxes/{sandbox.id}")
    expect(page.get_by_role("heading", name="Facts")).to_be_visible()
    alone: list[bool] = []

    def asked(request: Request) -> None:
        if request.url.endswith(f"/v1/sandboxes/{sandbox.id}"):
            alone.append("x-runner-unattended" in request.headers)

    page.on("request", asked)
    page.clock.run_for(20_000)
    eventually(lambda: alone)
    assert not any(alone)
    page.clock.run_for(90_000)
    eventually(lambda: alone[-1])
    page.keyboard.press("Shift")
    alone.clear()
    page.clock.run_for(20_000)
    eventually(lambda: alone)
    assert not any(alone)


def test_what_runs_in_a_terminal_does_not_leave_it(
    visit: Callable[..., Visitor], sandbox: Sandbox
) -> None:
    """Colours work, without the inline styles that the policy forbids; links and titles do not."""
    somebody = visit(Role.DEVELOPER)
    page = somebody.open(f"sandboxes/{sandbox.id}/processes")
    page.get_by_role("button", name="Open a terminal").click()
    expect(page.get_by_text("connected")).to_be_visible()
    title = page.title()
    typed(page, f"clear; printf '{COLOURS} {ESCAPES} {MARKUP}'; echo do''ne")
    eventually(lambda: "done" in screen(page))
    assert MARKUP in screen(page)
    green = page.locator(".xterm-rows span", has_text="true").last
    assert green.evaluate("span => getComputedStyle(span).color") == "rgb(10, 200, 30)"
    # The terminal itself takes the click, at the place of the link.
    box = page.locator(".xterm-rows span", has_text="link").last.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.title() == title
    assert len(somebody.context.pages) == 1
    assert page.locator(".xterm-rows img").count() == 0
    typed(page, "exit")


def test_a_process_is_run_followed_and_killed(
    visit: Callable[..., Visitor], sandbox: Sandbox
) -> None:
    page = visit(Role.DEVELOPER).open(f"sandboxes/{sandbox.id}/processes")
    page.get_by_label("Command", exact=True).fill(f"echo '{MARKUP}'; sleep 600")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("log")).to_contain_text(MARKUP)
    number = page.url.rpartition("/")[2]
    page.get_by_role("button", name=f"Kill process {number}").click()
    page.get_by_role("dialog").get_by_role("button", name="Kill").click()
    expect(page.get_by_role("link", name=number, exact=True)).to_have_count(0)


def test_files_are_seen_stored_and_removed(visit: Callable[..., Visitor], sandbox: Sandbox) -> None:
    name = f"{MARKUP}.html"
    sandbox.files.write(f"/workspace/in/{name}", MARKUP.encode())
    page = visit(Role.DEVELOPER).open(f"sandboxes/{sandbox.id}/files/%2Fworkspace")
    page.get_by_role("link", name="in/", exact=True).click()
    page.get_by_role("button", name=f"Show {name}").click()
    expect(page.get_by_label("Content")).to_have_text(MARKUP)
    page.get_by_label("Store a file here").last.set_input_files(
        {"name": "sent.txt", "mimeType": "text/plain", "buffer": b"sent"}
    )
    page.get_by_role("button", name="Store", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="sent.txt")).to_be_visible()
    assert sandbox.files.read("/workspace/in/sent.txt") == b"sent"
    page.get_by_role("button", name="Remove sent.txt").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("row").filter(has_text="sent.txt")).to_have_count(0)


def test_a_viewer_sees_a_sandbox_but_no_way_into_it(
    visit: Callable[..., Visitor], sandbox: Sandbox
) -> None:
    somebody = visit(Role.VIEWER)
    for part in ("", "/processes", "/files", "/ports", "/events"):
        page = somebody.open(f"sandboxes/{sandbox.id}{part}")
        expect(page.get_by_role("navigation", name="Parts of the sandbox")).to_be_visible()
        page.wait_for_timeout(200)
        for name in ("Pause", "End", "Open a terminal", "Run", "Kill", "Store", "Open"):
            expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
    assert somebody.refused == []


def test_what_was_refused_is_shown_and_allowed_by_those_who_may(
    world: Deployment, visit: Callable[..., Visitor]
) -> None:
    client = world.client(TENANT)
    client.put_egress_policy("reach", ["files.example.com"])
    code = "import urllib.request; urllib.request.urlopen('https://api.example.com/')"
    place = client.run(code=code, language="python", egress_policy="reach").id
    page = visit(Role.DEVELOPER).open(f"executions/{place}")
    expect(page.get_by_role("row").filter(has_text="api.example.com")).to_contain_text("denied")
    expect(page.get_by_role("button", name="Allow")).to_have_count(0)
    page = visit(Role.ADMIN).open(f"executions/{place}")
    page.get_by_role("button", name="Allow api.example.com:443").click()
    expect(page.get_by_label("Policy")).to_have_value("reach")
    page.get_by_role("button", name="Add the rule").click()
    expect(page.get_by_text("The policy reach allows it now")).to_be_visible()
    rules = client.egress_policy("reach")["rules"]
    assert [(each["scheme"], each["host"]) for each in rules] == [
        ("https", "files.example.com"),
        ("https", "api.example.com"),
    ]


def test_every_part_of_a_sandbox_can_be_used_by_everybody(
    visit: Callable[..., Visitor], sandbox: Sandbox
) -> None:
    somebody = visit(Role.DEVELOPER, viewport=NARROW)
    for part in ("", "/processes", "/files/%2Fworkspace", "/ports", "/events"):
        page = somebody.open(f"sandboxes/{sandbox.id}{part}")
        expect(page.get_by_role("navigation", name="Parts of the sandbox")).to_be_visible()
        if part == "/processes":
            page.get_by_role("button", name="Open a terminal").click()
            expect(page.get_by_text("connected")).to_be_visible()
        assert violations(page) == [], part
        wider = "() => document.documentElement.scrollWidth - innerWidth"
        assert page.evaluate(wider) <= 0, part
