"""`runner usage`: what the tenant used, and what is left of its quotas."""

from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from runner.cli.console import out, read_settings, reports_errors
from runner.cli.session import client

SHOWN = ("attempts", "cpu_s", "memory_gib_s", "egress_bytes_up", "egress_bytes_down",
         "artifact_bytes")  # fmt: skip


@reports_errors
def usage(
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day, UTC.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, UTC.")
    ] = None,
) -> None:
    """Show what was used by day, and what is left of each quota."""
    with client(read_settings()) as api:
        report = api.usage(first=_iso(first), last=_iso(last))
    quotas = Table(f"quota ({report['tier']})", "used", "of", "left", "free again")
    for quota in report["quotas"]:
        used, limit, left = (f"{quota[name]:,.10g}" for name in ("used", "limit", "remaining"))
        quotas.add_row(quota["name"], used, limit, left, quota["frees_at"] or "")
    days = Table("day (UTC)", *SHOWN)
    sums = [(day["day"], day["used"]) for day in report["days"]]
    for name, used in [*sums, ("total", report["total"])]:
        days.add_row(name, *(f"{used[column]:,.10g}" for column in SHOWN))
    out.print(quotas, days)


def _iso(day: datetime | None) -> str | None:
    return day.date().isoformat() if day else None
