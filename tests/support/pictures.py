"""`make pictures`: the console's pages as docs/operations/console.md shows them."""

from pathlib import Path

from playwright.sync_api import expect

from runner.words.principal import Role
from tests.support import browser as browsers
from tests.support import deployment as deployments
from tests.support.browser import visitor
from tests.support.deployment import NO_POOL
from tests.support.people import joined

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "operations" / "console"
WINDOW = {"width": 1100, "height": 720}
PROGRAM = """
import csv, sys
for step in range(1, 4):
    print(f"step {step} of 3")
print("one value was missing", file=sys.stderr)
csv.writer(open("result.csv", "w")).writerows([("city", "mean"), ("Oslo", 5.7), ("Rome", 15.2)])
"""


def main() -> None:
    """Take the pictures."""
    FOLDER.mkdir(exist_ok=True)
    deployments.build_image()
    browsers.build()
    with deployments.deployment(insecure_cookies=True, **NO_POOL) as world:
        ada = joined(world, "acme", "ada", Role.OWNER)
        client = world.client("acme")
        made = client.run(code=PROGRAM, language="python", metadata={"agent": "analyst-7"})
        with (
            client.sandboxes.create(timeout_s=600) as sandbox,
            browsers.chromium() as browser,
            visitor(browser, world.url, ada, viewport=WINDOW) as light,
            visitor(browser, world.url, ada, viewport=WINDOW, color_scheme="dark") as dark,
        ):
            page = light.open(f"executions/{made.id}")
            page.get_by_role("button", name="Show result.csv").click()
            expect(page.get_by_role("cell", name="Oslo")).to_be_visible()
            page.screenshot(path=FOLDER / "execution.png", full_page=True)
            page = dark.open(f"sandboxes/{sandbox.id}/processes")
            page.get_by_role("button", name="Open a terminal").click()
            expect(page.get_by_text("connected")).to_be_visible()
            page.keyboard.type("ls -l / | head -5; python3 -c 'print(6 * 7)'\n")
            expect(page.locator(".xterm-rows")).to_contain_text("42")
            page.screenshot(path=FOLDER / "terminal.png")
            page = light.open("audit")
            page.get_by_role("button", name="Verify the whole log").click()
            expect(page.locator(".notice.good")).to_be_visible()
            page.screenshot(path=FOLDER / "audit.png")
    deployments.end_fork_server()
    deployments.forget_databases()


if __name__ == "__main__":
    main()
