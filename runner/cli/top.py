"""`runner top`: nodes, the queue by tenant, sandboxes and rates, as they change."""

import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from runner.cli import human
from runner.cli.console import fail, out, plain, reports_errors
from runner.cli.database import as_operator
from runner.cli.listing import AsJson, print_json, print_table
from runner.cli.session import operated
from runner.fleet.load import DeploymentLoad, read_load
from runner.words.text import counted

MIB = 2**20
MOST = 200
"""Most tenants that JSON and a pipe get."""
ROOM = 6
"""Lines of a terminal that are not for nodes and tenants: headings, sums and gaps."""


@reports_errors
def top(
    every_s: Annotated[
        float, typer.Option(min=0.2, max=3600, help="Seconds between updates.")
    ] = 2.0,
    *,
    once: Annotated[bool, typer.Option("--once", help="Print it once, and exit.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch nodes, the queue by tenant, sandboxes and rates, until Ctrl-C.

    Needs RUNNER_DATABASE_OPERATOR_URL, or `runner dev` beside it.
    """
    settings = operated()

    def look() -> DeploymentLoad:
        return as_operator(settings, lambda db: read_load(db, most=MOST))

    if as_json:
        if not once:
            fail("--json needs --once")
        print_json(asdict(look()))
        return
    if once or not out.is_terminal:
        found = look()
        for table in (_nodes(found), _tenants(found, MOST)):
            print_table(table)
        out.print(_sums(found), highlight=False)
        return
    try:
        with Live(console=out, screen=True, auto_refresh=False) as live:
            while True:
                found = look()
                room = out.size.height - len(found.nodes) - ROOM
                shown = (_sums(found), _nodes(found), Text(), _tenants(found, max(1, room)))
                live.update(Group(*shown), refresh=True)
                time.sleep(every_s)
    except KeyboardInterrupt:
        return


def _sums(found: DeploymentLoad) -> Text:
    tenants = found.tenants
    text = (
        f"{sum(each.waiting for each in tenants)} wait, "
        f"{sum(each.active for each in tenants)} run, "
        f"{sum(each.ended_last_minute for each in tenants)} ended in the last minute, "
        f"{counted(sum(each.living for each in tenants), 'living sandbox')}"
    )
    return Text(text + (", and more of other tenants" if found.more else ""), "bold")


def _nodes(found: DeploymentLoad) -> Table:
    table = _table("node", "state", "runs", "sandboxes", "memory free", "seen")
    for each in found.nodes:
        table.add_row(
            plain(each.node),
            f"{each.state.value}, broken" if each.fault else each.state.value,
            f"{each.running}/{each.slots}",
            f"{each.living}/{each.sandboxes}",
            human.size(each.free_mb * MIB),
            human.age(each.seen_at.isoformat()),
        )
    return table


def _tenants(found: DeploymentLoad, most: int) -> Table:
    table = _table("tenant", "tier", "waits", "runs", "per minute", "sandboxes")
    for each in found.tenants[:most]:
        table.add_row(
            plain(each.tenant),
            f"{each.tier}, suspended" if each.suspended else each.tier,
            str(each.waiting),
            f"{each.active}/{each.concurrent}",
            str(each.ended_last_minute),
            str(each.living),
        )
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    return table
