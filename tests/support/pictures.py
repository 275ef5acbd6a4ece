"""`make pictures`: the consoles' pages as docs/operations/console.md shows them."""

from pathlib import Path

from playwright.sync_api import expect

from runner.words.principal import Role
from tests.support import browser as browsers
from tests.support import deployment as deployments
from tests.support.browser import visitor
from tests.support.deployment import NO_POOL
from tests.support.people import OperatingPerson, joined

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "operations" / "console"
WINDOW = {"width": 1100, "height": 720}
SOME_SAMPLES_MS = 20_000
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
        grace = OperatingPerson(world)
        client = world.client("acme")
        made = client.run(code=PROGRAM, language="python", metadata={"agent": "analyst-7"})
        with (
            client.sandboxes.create(timeout_s=600) as sandbox,
            browsers.chromium() as browser,
            visitor(browser, world.url, ada, viewport=WINDOW) as light,
            visitor(browser, world.url, ada, viewport=WINDOW, color_scheme="dark") as dark,
            visitor(
                browser, world.url, grace, console="/console/operator", viewport=WINDOW
            ) as operating,
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
            busy = [
                (client, client.submit(command=["sleep", "60"], size="nano"))
                for client, number in (
                    (world.client("acme"), 1),
                    (world.client("globex", max_concurrency=1), 3),
                    (world.client("initech", max_concurrency=2), 4),
                )
                for _ in range(number)
            ]
            page = operating.open()
            rows = page.get_by_role("region", name="Queue by tenant").get_by_role("row")
            expect(rows).to_have_count(4)
            page.wait_for_timeout(SOME_SAMPLES_MS)
            page.screenshot(path=FOLDER / "operators.png", full_page=True)
            for made_by, each in busy:
                made_by.cancel(each.id)
    deployments.end_fork_server()
    deployments.forget_databases()
    deployments.finish_removals()


if __name__ == "__main__":
    main()
