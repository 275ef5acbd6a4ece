"""`runner demo`: an agent's real task, a hostile program, and the audit trail of both.

Shows what happens while it happens, checks everything it shows, and leaves nothing behind but
caches. Its exit code is 0 only if all of it came out right.
"""

import csv
import io
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from importlib import resources
from pathlib import Path

import typer
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from runner.base import telemetry
from runner.base.settings import Settings
from runner.cli import operate
from runner.cli.audit import print_audit
from runner.cli.console import err, out, reports_errors
from runner.cli.session import embedded, operated
from runner.client import Client, Execution

ROWS = 5000
TASK_S = 30.0
LONGEST_S = 600.0
"""What the size `large` permits, and so the demo's key."""
REGIONS = ("north", "south", "east", "west")
PNG = b"\x89PNG\r\n\x1a\n"


@reports_errors
def demo() -> None:
    """Run the main job once on private PostgreSQL and Redis, and show what came of it."""
    telemetry.configure("error", json=False)
    settings = operated()
    operate.images_build([settings.images[0]])
    out.print("[dim]starting PostgreSQL, Redis, API and worker …[/]")
    with (
        temporary_state(settings) as private,
        embedded(private, ephemeral=True) as address,
        Client(address.url, address.api_key) as api,
    ):
        wrong = [
            *analysis(api, min(settings.patient(TASK_S), LONGEST_S)),
            *hostile(api),
            *audit(api),
        ]
    for each in wrong:
        err.print(f"[bold red]wrong:[/] {each}", highlight=False)
    if wrong:
        raise typer.Exit(1)
    out.print(Panel.fit("[bold green]Everything shown came out right.[/]"))


def analysis(api: Client, timeout_s: float) -> Iterator[str]:
    """Run the data task; yield what is not as it should be."""
    table, revenue = sales()
    out.rule(f"1. An agent's data task: {ROWS} rows in, a chart and a summary out")
    submitted = api.submit(code=program("analysis.py"), language="python",
                           limits={"timeout_s": timeout_s}, files={"sales.csv": table},
                           metadata={"demo": "analysis"})  # fmt: skip
    ended = follow(api, submitted)
    show(ended)
    if ended.state != "succeeded":
        yield f"the data task ended as {ended.state}: {ended.stderr.text if ended.stderr else ''}"
        return
    summary = json.loads(fetch(api, ended, "summary.json"))
    out.print_json(data=summary)
    if summary["rows"] != ROWS or abs(summary["revenue"] - revenue) > 1:
        yield f"the summary {summary} does not match the table ({ROWS} rows, {revenue:.2f})"
    if not fetch(api, ended, "chart.png").startswith(PNG):
        yield "chart.png is no PNG"


def hostile(api: Client) -> Iterator[str]:
    """Run the hostile program; yield every attempt that was not refused."""
    out.rule("2. A hostile program: everything it tries is refused")
    submitted = api.submit(
        code=program("hostile.py"), language="python", metadata={"demo": "hostile"}
    )
    ended = api.wait(submitted)
    table = Table("it tries to", "answer")
    said = ended.stdout.text if ended.stdout else ""
    attempts = [json.loads(line) for line in said.splitlines()]
    for each in attempts:
        refused = each.get("refused")
        table.add_row(each["try"], f"[green]{refused}[/]" if refused else "[red]succeeded[/]")
        if not refused:
            yield f"the hostile program could {each['try']}"
    out.print(table)
    show(ended)
    expected = program("hostile.py").count("\nattempt(")
    if len(attempts) != expected:
        yield f"{len(attempts)} of {expected} attempts were reported"
    if "pids" not in ended.limits_hit:
        yield "the fork bomb did not meet the pids limit"


def audit(api: Client) -> Iterator[str]:
    """Show the audit trail and its verification; yield what is missing."""
    out.rule("3. The audit trail, hash-chained in the database")
    records = api.audit(limit=100)["items"]
    print_audit(records)
    verdict = api.verify_audit()
    out.print(f"verification: {verdict['records']} records, head {verdict['head'][:16]}…, "
              f"{'[green]whole[/]' if verdict['valid'] else '[red]broken[/]'}")  # fmt: skip
    if not verdict["valid"]:
        yield f"the audit log does not hold: {verdict['fault']}"
    for action in ("execution:submit", "execution:start", "execution:end"):
        if sum(each["record"]["action"] == action for each in records) != 2:  # noqa: PLR2004 - one for each program
            yield f"the audit log does not hold two records of {action}"


def follow(api: Client, submitted: Execution) -> Execution:
    """Show an execution's progress until it ends, and return it."""
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=out,
        transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("queued")
        for event in api.events(submitted.id):
            if event.kind == "state":
                progress.update(task, description=event.data["state"])
            else:
                progress.console.print(f"  [dim]{event.raw.decode().rstrip()}[/]", highlight=False)
    return api.get(submitted.id)


def show(ended: Execution) -> None:
    """Print how an execution ended."""
    usage = ended.usage
    style = "green" if ended.state == "succeeded" else "yellow"
    out.print(
        f"[{style}]{ended.state}[/]  {ended.detail}  "
        f"[dim]{usage['wall_s']:.2f} s, {usage['cpu_s'] or 0:.2f} s CPU, "
        f"{(usage['memory_peak_bytes'] or 0) / 2**20:.0f} MiB, "
        f"limits met: {', '.join(ended.limits_hit) or 'none'}[/]",
        highlight=False,
    )
    for artifact in ended.artifacts:
        out.print(
            f"  {artifact.path}  {artifact.size} bytes  [dim]sha256 {artifact.sha256[:16]}…[/]"
        )


def fetch(api: Client, ended: Execution, path: str) -> bytes:
    """Return an artifact's bytes."""
    with api.download(ended.id, path) as chunks:
        return b"".join(chunks)


def program(name: str) -> str:
    """Return the source of one of the demo's programs."""
    return resources.files("runner.cli").joinpath("demo_programs", name).read_text("utf-8")


def sales() -> tuple[str, float]:
    """Return a table of made-up sales as CSV, the same every time, and its revenue."""
    dice = random.Random(7)  # noqa: S311 - made-up figures
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["day", "region", "units", "price"])
    revenue = 0.0
    for row in range(ROWS):
        day = date(2025, 1, 1) + timedelta(days=row % 365)
        units, price = dice.randint(1, 40), round(dice.uniform(2, 90), 2)
        revenue += units * price
        writer.writerow([day.isoformat(), dice.choice(REGIONS), units, price])
    return text.getvalue(), revenue


@contextmanager
def temporary_state(settings: Settings) -> Iterator[Settings]:
    """Yield settings with a state folder that is gone afterwards; binaries stay as a cache."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="demo-", dir=settings.state_dir))
    try:
        # The services' own user has to pass through.
        folder.chmod(0o711)
        yield settings.model_copy(update={"state_dir": folder})
    finally:
        shutil.rmtree(folder)
