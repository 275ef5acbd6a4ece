"""Chromium, in which tests use the console as people do; and what it must never do.

Every page here is watched: an error that the browser reports, such as a broken policy, fails the
test, and so does a script that content of strangers has started.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support.deployment import PATIENCE_S
from tests.support.people import OperatingPerson, Person

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "console" / "node_modules" / "axe-core" / "axe.min.js"
WIDE: Any = {"width": 1280, "height": 900}
NARROW: Any = {"width": 390, "height": 800}
SERIOUS = {"serious", "critical"}
HACKED = "hacked"
"""The name of the global variable that hostile content of tests sets if it runs."""
EXPECTED = ("Failed to load resource",)
"""Errors that Chromium reports of answers with an error status, as a refused login has."""


@cache
def build() -> None:
    """Build the console unless it is built."""
    subprocess.run([ROOT / "scripts" / "console"], check=True, timeout=600)


@cache
def program() -> str:
    """Return the path of Chromium, which is installed if it is missing."""
    done = subprocess.run(
        [ROOT / "scripts" / "chromium"], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser inside the context."""
    with sync_playwright() as playing:
        # Tests may run as root, for whom Chromium's own sandbox does not work.
        browser = playing.chromium.launch(executable_path=program(), chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visitor:
    """Somebody with a browser window of their own."""

    console: str
    context: BrowserContext
    page: Page
    errors: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def open(self, place: str = "") -> Page:
        """Open a page of the console."""
        self.page.goto(f"{self.console}#/{place}")
        return self.page

    def check(self) -> None:
        """Fail if the browser reported an error, or hostile content has run."""
        assert self.errors == []
        assert not self.page.evaluate(f"() => '{HACKED}' in globalThis")


@contextmanager
def visitor(
    browser: Browser,
    url: str,
    person: Person | OperatingPerson | None = None,
    *,
    console: str = "/console",
    **options: Any,
) -> Iterator[Visitor]:
    """Open a window inside the context, logged in as a person if one is given, and watch it."""
    context = browser.new_context(**{"viewport": WIDE, **options})
    context.set_default_timeout(PATIENCE_S * 1000)
    if person is not None:
        (cookie,) = person.http.cookies.jar
        context.add_cookies([{"name": cookie.name, "value": cookie.value or "", "url": url}])
    made = Visitor(f"{url}{console}", context, context.new_page())

    def told(message: Any) -> None:
        if message.type == "error" and not message.text.startswith(EXPECTED):
            made.errors.append(message.text)

    def answered(response: Any) -> None:
        if response.status in {401, 403}:
            made.refused.append(f"{response.status} {response.request.method} {response.url}")

    made.page.on("console", told)
    made.page.on("pageerror", lambda error: made.errors.append(str(error)))
    made.page.on("dialog", lambda dialog: made.errors.append(f"dialog: {dialog.message}"))
    made.page.on("response", answered)
    try:
        yield made
        made.check()
    finally:
        context.close()


def violations(page: Page) -> list[str]:
    """Return the serious findings of axe-core on a page as it is now."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]
