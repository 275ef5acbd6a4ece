"""`runner demo`: an agent's task, a hostile program, a living sandbox, and the audit trail of all.

It shows what happens while it happens, checks everything that it shows, and leaves nothing behind
but caches. It exits with 0 only if everything came out right.
"""

import csv
import io
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from importlib import resources
from pathlib import Path

import typer
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from agent_runner import Client, Execution, Sandbox
from runner.base import telemetry
from runner.base.settings import Settings
from runner.cli import operate
from runner.cli.audit import print_audit
from runner.cli.console import err, out, reports_errors
from runner.cli.embedded import embedded
from runner.cli.session import operated
from runner.words.text import counted

ROWS = 5000
TASK_S = 120.0
"""Both tasks take seconds. A machine that is slow or busy shall show them too."""
LONGEST_S = 600.0
"""The limits of the size `large`, and so of the demo's key."""
REGIONS = ("north", "south", "east", "west")
PNG = b"\x89PNG\r\n\x1a\n"


@reports_errors
def demo() -> None:
    """Run an example of everything on private PostgreSQL and Redis, and show the results."""
    telemetry.configure("error", json=False)
    settings = operated()
    operate.images_build([settings.images[0]])
    out.print("[dim]starting PostgreSQL, Redis, API and worker …[/]")
    timeout_s = min(settings.patient(TASK_S), LONGEST_S)
    with (
        temporary_state(settings) as private,
        embedded(private, ephemeral=True) as address,
        Client(address.url, address.api_key) as api,
    ):
        wrong = [
            *analysis(api, timeout_s),
            *hostile(api, timeout_s),
            *living(api),
            *audit(api),
        ]
    for each in wrong:
        err.print(f"[bold red]wrong:[/] {each}", highlight=False)
    if wrong:
        raise typer.Exit(1)
    out.print(Panel.fit("[bold green]Everything shown came out right.[/]"))


def analysis(api: Client, timeout_s: float) -> Iterator[str]:
    """Run the data task; yield everything that is wrong with its result."""
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


def hostile(api: Client, timeout_s: float) -> Iterator[str]:
    """Run the hostile program; yield every attempt that was not refused."""
    out.rule("2. A hostile program: everything it tries is refused")
    submitted = api.submit(
        code=program("hostile.py"),
        language="python",
        limits={"timeout_s": timeout_s},
        metadata={"demo": "hostile"},
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


def living(api: Client) -> Iterator[str]:
    """Work in a sandbox as an agent does, step by step; yield every step that went wrong."""
    out.rule("3. A sandbox that lives: an agent works in it step by step")
    table = Table("the agent", "answer", Column("ms", justify="right"))
    with api.sandboxes.create(metadata={"demo": "living"}) as sandbox:
        for what, step, expected in _steps(sandbox):
            began = time.perf_counter()
            answer = step()
            took_ms = 1000 * (time.perf_counter() - began)
            right = answer == expected
            table.add_row(what, f"[{'green' if right else 'red'}]{answer}[/]", f"{took_ms:.0f}")
            if not right:
                yield f"in the living sandbox, {what!r} answered {answer!r} instead of {expected!r}"
    out.print(table)


Step = tuple[str, Callable[[], str], str]
"""A step of the agent: its description, the call that does it, and the right answer."""


def _steps(sandbox: Sandbox) -> Iterator[Step]:
    def python(code: str) -> str:
        ran = sandbox.run(["python3", "-c", code])
        return (ran.stdout.text + ran.stderr.text).strip()

    def written(path: str, content: str) -> str:
        return counted(sandbox.files.write(path, content).size, "byte")

    def paused() -> str:
        return f"{sandbox.pause().state}, then {sandbox.resume().state}"

    module = "def area(r): return 3.14 * r * r"
    yield "writes a module", lambda: written("area.py", "def area(r): return 3 * r * r"), "29 bytes"
    yield "runs it", lambda: python("import area; print(area.area(2))"), "12"
    yield "corrects it", lambda: written("area.py", module), "32 bytes"
    yield "runs it again", lambda: python("import area; print(area.area(2))"), "12.56"
    server = sandbox.start(["python3", "-m", "http.server", "8000", "--bind", "127.0.0.1"])
    yield (
        "asks a server that it left running",
        lambda: python(_ASKING),
        "def area(r): return 3.14 * r * r",
    )
    yield "pauses and resumes everything", paused, "paused, then running"
    yield "asks the server again", lambda: python(_ASKING), module
    yield "sees what runs", lambda: server.refresh().state, "running"


_ASKING = """
import time, urllib.request
for _ in range(100):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:8000/area.py", timeout=5).read().decode())
        break
    except OSError:
        time.sleep(0.05)
"""
"""A program that waits until the server answers, and prints the answer."""


def audit(api: Client) -> Iterator[str]:
    """Show the audit trail and its verification; yield what is missing."""
    out.rule("4. The audit trail, hash-chained in the database")
    records = api.audit(limit=100)["items"]
    print_audit(records)
    verdict = api.verify_audit()
    whole = counted(verdict["records"], "record")
    out.print(f"verification: {whole}, head {verdict['head'][:16]}…, "
              f"{'[green]whole[/]' if verdict['valid'] else '[red]broken[/]'}")  # fmt: skip
    if not verdict["valid"]:
        yield f"the audit log does not hold: {verdict['fault']}"
    for action in ("execution:submit", "execution:start", "execution:end"):
        if sum(each["record"]["action"] == action for each in records) != 2:  # noqa: PLR2004 - one for each program
            yield f"the audit log does not hold two records of {action}"
    for action in ("sandbox:create", "sandbox:start", "sandbox:end"):
        if sum(each["record"]["action"] == action for each in records) != 1:
            yield f"the audit log does not hold one record of {action}"


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
            f"  {artifact.path}  {counted(artifact.size, 'byte')}  "
            f"[dim]sha256 {artifact.sha256[:16]}…[/]"
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
        # The services' own user must be able to enter it.
        folder.chmod(0o711)
        yield settings.model_copy(update={"state_dir": folder, "sandboxes_on_stop": "end"})
    finally:
        shutil.rmtree(folder)
