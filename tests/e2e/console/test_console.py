"""The console, used in Chromium: signing in, executions as they run, and content of strangers."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from runner.words.principal import Role
from tests.e2e.console.conftest import TENANT
from tests.support.browser import HACKED, NARROW, WIDE, Visitor, violations, visitor
from tests.support.deployment import PATIENCE_S, Deployment, eventually
from tests.support.forwarder import Forwarder
from tests.support.people import Person

expect.set_options(timeout=PATIENCE_S * 1000)

MARKUP = (
    f"<script>{HACKED}=1</script><img src=x onerror={HACKED}=1><svg onload={HACKED}=1>"
    f"<iframe srcdoc='<script>parent.{HACKED}=1</script>'></iframe>"
)
ESCAPES = "\x1b[2J\x1b[31mred\x1b]0;title\x07\x1b]8;;https://evil.test\x07link\x9b3J"
REORDERED = "user\u202etxt.exe"
UNSEEN = "pay\u00adroll\U000e0041\u3164\u206a \u2714\ufe0f"
HOSTILE = MARKUP + ESCAPES + REORDERED + UNSEEN
BAD_NAME = "a<img src=x onerror=hacked=1>.html"
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TICKS = """
import itertools, time
for number in itertools.count():
    print("tick", number, flush=True)
    time.sleep(0.1)
"""


def ran(world: Deployment, code: str, **options: Any) -> str:
    """Run a program to its end and return its execution's id."""
    return str(world.client(TENANT).run(code=code, language="python", **options).id)


def test_a_person_signs_in_and_out_by_keyboard_alone(
    world: Deployment, browser: Browser, people: dict[Role, Person]
) -> None:
    """No script can read the session, and the browser stores nothing else."""
    person = people[Role.OWNER]
    with visitor(browser, world.url) as somebody:
        page = somebody.open()
        expect(page.get_by_label("E-mail")).to_be_focused()
        page.keyboard.type(person.email)
        page.keyboard.press("Tab")
        page.keyboard.type("not the password")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("address, password or tenant is wrong")
        page.get_by_label("Password").fill(person.password)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Overview")).to_be_focused()
        assert page.evaluate("() => document.cookie") == ""
        assert page.evaluate("() => localStorage.length + sessionStorage.length") == 0
        page.get_by_role("button", name="Log out").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_label("E-mail")).to_be_visible()
        page.reload()
        expect(page.get_by_label("E-mail")).to_be_visible()


def test_a_session_that_ended_leads_back_to_the_login(
    world: Deployment, browser: Browser, people: dict[Role, Person]
) -> None:
    person = Person(world, people[Role.DEVELOPER].email)
    assert person.log_in(TENANT).is_success
    with visitor(browser, world.url, person) as somebody:
        page = somebody.open("executions")
        expect(page.get_by_role("heading", name="Executions")).to_be_visible()
        # The list's own request must not be the one that learns of the end.
        expect(page.get_by_text("Loading …")).to_have_count(0)
        person.http.post("/v1/logout")
        page.get_by_role("button", name="Reload").click()
        expect(page.get_by_role("status")).to_contain_text("Your session has ended")


def test_output_is_shown_while_the_program_runs_and_it_can_be_cancelled(
    visit: Callable[..., Visitor],
) -> None:
    page = visit(Role.DEVELOPER).open("executions/new")
    page.get_by_label("Code").fill(TICKS)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("log")).to_contain_text("tick 3")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator(".facts")).to_contain_text("cancelled")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_after_a_lost_connection_output_goes_on_without_gap_or_repetition(
    world: Deployment, visit: Callable[..., Visitor]
) -> None:
    """While the API is out of reach, the page says so and keeps what it has."""
    with Forwarder(world.url) as way:
        somebody = visit(Role.DEVELOPER, url=way.url)
        page = somebody.open("executions/new")
        page.get_by_label("Code").fill(TICKS)
        page.get_by_role("button", name="Run", exact=True).click()
        log = page.get_by_role("log")
        expect(log).to_contain_text("tick 1\n")
        somebody.context.set_offline(True)
        way.cut()
        expect(page.get_by_text("The connection was lost")).to_be_visible()
        missed = int(log.inner_text().split()[-1]) + 3
        somebody.context.set_offline(False)
        expect(log).to_contain_text(f"tick {missed}\n")
        expect(page.get_by_text("The connection was lost")).to_have_count(0)
        shown = log.inner_text().split("tick ")[1:]
        assert [int(each) for each in shown] == list(range(len(shown)))
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        expect(page.locator(".facts")).to_contain_text("cancelled")


def test_what_a_program_writes_is_text_and_nothing_else(
    world: Deployment, visit: Callable[..., Visitor]
) -> None:
    """Neither markup nor terminal escapes nor marks that reorder or hide text are obeyed."""
    code = (
        f"import sys; sys.stdout.write({HOSTILE!r}); open({BAD_NAME!r}, 'w').write({MARKUP!r}); "
        f"open('a.svg', 'w').write({MARKUP!r}); open('a.csv', 'w').write('h\\n' + {MARKUP!r})"
    )
    place = ran(world, code, metadata={"agent": MARKUP})
    page = visit().open(f"executions/{place}")
    log = page.get_by_role("log")
    expect(log).to_contain_text(MARKUP)
    expect(log).to_contain_text("␛[2J␛[31mred␛]0;title␇")
    expect(log).to_contain_text("user⟨U+202E⟩txt.exe")
    expect(log).to_contain_text("pay⟨U+00AD⟩roll⟨U+E0041⟩⟨U+3164⟩⟨U+206A⟩ ✔️")
    assert log.locator("script, img, svg, iframe").count() == 0
    for name in (BAD_NAME, "a.svg", "a.csv"):
        page.get_by_role("button", name=f"Show {name}").click()
        expect(page.locator("figure")).to_contain_text(f"<script>{HACKED}=1</script>")
    assert page.locator("main :is(script, img, svg, iframe)").count() == 0


def test_output_that_changes_its_stream_all_the_time_does_not_freeze_the_page(
    world: Deployment, visit: Callable[..., Visitor]
) -> None:
    """Each piece is an element of the page.

    The API is played here: it gathers what a program writes at once, and a program would take
    minutes for so many pieces.
    """
    told = [
        f"event: {stream}\nid: {number}\n"
        f"data: {json.dumps({'attempt': 1, 'at': '', 'content': 'x', 'encoding': 'utf-8'})}\n\n"
        for number in range(10_000)
        for stream in ("stdout", "stderr")
    ]
    place = ran(world, "print('real')")
    page = visit(Role.VIEWER).page
    events = f"**/v1/executions/{place}/events"
    page.route(events, lambda route: route.fulfill(
        content_type="text/event-stream", body="".join(told)
    ))  # fmt: skip
    page.goto(f"{world.url}/console#/executions/{place}")
    log = page.get_by_role("log")
    expect(log).to_contain_text("x")
    expect(page.get_by_text("earlier characters are not shown")).to_be_visible()
    assert log.locator("span").count() == 2000


def test_json_that_grows_when_it_is_indented_is_shown_as_it_is(
    world: Deployment, visit: Callable[..., Visitor]
) -> None:
    """10 KB would become 50 MB. What closes more brackets within a text is nested all the same."""
    code = (
        "open('deep.json', 'w').write('[' * 3000 + ']' * 3000)\n"
        "open('sly.json', 'w').write('[\"' + ']' * 3000 + '\", ' + '[' * 3000 + ']' * 3001)"
    )
    page = visit(Role.VIEWER).open(f"executions/{ran(world, code)}")
    for name in ("deep.json", "sly.json"):
        page.get_by_role("button", name=f"Show {name}").click()
        expect(page.get_by_label("Content")).to_contain_text("[[[[")


def test_the_same_content_runs_where_it_is_taken_for_markup(browser: Browser) -> None:
    """The control: what the tests above look for is found on a page without our two defences."""
    page = browser.new_page()
    page.evaluate("markup => { document.body.innerHTML = markup }", MARKUP)
    eventually(lambda: page.evaluate(f"() => '{HACKED}' in globalThis"))
    page.close()


@pytest.mark.parametrize(
    ("fault", "stopped"),
    [
        ("document.body.innerHTML = markup", "TrustedHTML"),
        ("document.body.setAttribute('onclick', markup)", "TrustedScript"),
        ("document.createElement('script').text = markup", "TrustedScript"),
    ],
    ids=["markup", "handler", "script"],
)
def test_the_policy_alone_stops_it_too(
    world: Deployment, browser: Browser, fault: str, stopped: str
) -> None:
    """A fault of the console that took text for code would throw, and run nothing."""
    page = browser.new_page()
    page.goto(f"{world.url}/console")
    thrown = page.evaluate(
        f"markup => {{ try {{ {fault} }} catch (told) {{ return `${{told}}` }} }}", MARKUP
    )
    assert stopped in thrown
    page.close()


def test_an_artifact_is_shown_as_what_it_is(
    world: Deployment, visit: Callable[..., Visitor]
) -> None:
    code = (
        f"import base64, json; open('a.png', 'wb').write(base64.b64decode({PIXEL!r}));"
        "open('b.json', 'w').write(json.dumps({'k': [1]}));"
        "open('c.csv', 'w').write('x,y\\n1,\"a,b\"')"
    )
    page = visit(Role.VIEWER).open(f"executions/{ran(world, code)}")
    page.get_by_role("button", name="Show a.png").click()
    image = page.get_by_role("img", name="The image a.png")
    eventually(lambda: image.evaluate("image => image.naturalWidth") == 1)
    page.get_by_role("button", name="Show b.json").click()
    expect(page.get_by_label("Content")).to_have_text('{\n  "k": [\n    1\n  ]\n}')
    page.get_by_role("button", name="Show c.csv").click()
    expect(page.get_by_role("cell", name="a,b")).to_be_visible()
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download b.json").click()
    assert saved.value.suggested_filename == "b.json"


def test_a_receipt_is_checked_in_the_browser(
    world: Deployment, visit: Callable[..., Visitor]
) -> None:
    """A receipt in which one number was changed is not valid."""
    page = visit(Role.VIEWER).open(f"executions/{ran(world, 'print(1.5)')}")
    page.get_by_role("button", name="Read and check").click()
    expect(page.locator(".notice.good")).to_contain_text("Valid: signed by key")

    def changed(route: Route) -> None:
        document = json.loads(route.fetch().text())
        document["body"]["exit_code"] = 1
        route.fulfill(json=document)

    page.route("**/receipt", changed)
    page.get_by_role("button", name="Read and check").click()
    expect(page.locator(".notice.bad")).to_contain_text("the signature does not fit")


def test_a_list_of_ten_thousand_is_read_page_by_page(
    world: Deployment, visit: Callable[..., Visitor]
) -> None:
    sample = ran(world, "pass", project=None)
    columns = [
        each["column_name"]
        for each in world.sql(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'executions' "
            "AND column_name <> 'execution_id'"
        )
    ]
    named = ", ".join(columns)
    world.sql(
        f"INSERT INTO executions (execution_id, {named}) "  # noqa: S608 - columns of the schema
        f"SELECT ('0199f2a1-c0de-7b1f-b0d5-' || lpad(to_hex(n), 12, '0'))::uuid, {named} "
        "FROM executions, generate_series(1, 10000) n WHERE execution_id = %s",
        sample,
    )
    page = visit().open("executions?state=succeeded")
    rows = page.get_by_role("row")
    expect(rows).to_have_count(51)
    first = rows.nth(1).inner_text()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("Page 2")).to_be_visible()
    expect(rows.nth(1)).not_to_have_text(first)
    page.get_by_role("button", name="Previous").click()
    expect(rows.nth(1)).to_contain_text(first.split()[0])
    page.get_by_label("State").select_option("queued")
    expect(page.get_by_text("There are no executions here.")).to_be_visible()


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
def test_nothing_that_a_page_shows_or_loads_is_refused_to_its_role(
    world: Deployment, visit: Callable[..., Visitor], role: Role
) -> None:
    somebody = visit(role)
    page = somebody.open()
    links = page.get_by_role("navigation", name="Pages").get_by_role("link")
    expect(links.first).to_be_visible()
    names = [each for each in links.all_inner_texts() if each not in {"API reference", "Licences"}]
    for name in names:
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
        page.wait_for_load_state("networkidle")
    assert somebody.refused == []
    page = somebody.open("executions")
    makes = role is not Role.VIEWER
    expect(page.get_by_role("link", name="Run a program")).to_have_count(int(makes))


def places(page: Page) -> list[str]:
    """Return the addresses of all pages that somebody's navigation leads to."""
    # Narrow windows hide them behind a button.
    links = page.locator("#pages a")
    expect(links.first).to_be_attached()
    found = [str(each.get_attribute("href")) for each in links.all()]
    return [each.removeprefix("#/") for each in found if each.startswith("#/")]


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
    world: Deployment, visit: Callable[..., Visitor], window: Any, scheme: str
) -> None:
    """axe-core finds nothing serious, and no page is wider than its window."""
    sample = ran(world, "import sys; print('out'); sys.exit('err')")
    somebody = visit(viewport=window, color_scheme=scheme)
    page = somebody.open()
    for place in [*places(page), "executions/new", f"executions/{sample}", "none"]:
        somebody.open(place)
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        page.wait_for_load_state("networkidle")
        assert violations(page) == [], place
        wider = "() => document.documentElement.scrollWidth - innerWidth"
        assert page.evaluate(wider) <= 0, place


def test_axe_finds_a_fault_that_is_there(visit: Callable[..., Visitor]) -> None:
    page = visit().open()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.evaluate("() => document.querySelector('main').append(document.createElement('input'))")
    assert any(each.startswith("label") for each in violations(page))
