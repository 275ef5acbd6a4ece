"""Commands for operators' keys, which open `/operator/v1`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer

from runner.cli.arguments import MOST_DAYS, label
from runner.cli.console import err, out, reports_errors
from runner.cli.database import as_owner
from runner.cli.listing import AsJson, print_json, print_rows
from runner.cli.session import operated
from runner.store import operators as stored_operators
from runner.store.db import Database
from runner.tenants import tenancy

T = TypeVar("T")


operators = typer.Typer(
    help="Operators' keys, for `/operator/v1`; needs RUNNER_DATABASE_OWNER_URL, or `runner dev` "
    "beside it.",
    no_args_is_help=True,
)


@operators.command("create")
@reports_errors
def create_operator(
    name: Annotated[str, typer.Argument(help="Whose it is, or what it is for.", callback=label)],
    days: Annotated[
        int | None, typer.Option(min=1, max=MOST_DAYS, help="Days until it expires.")
    ] = None,
) -> None:
    """Make an operator's key and print it, once."""
    ends = None if days is None else datetime.now(UTC) + timedelta(days=days)
    token = as_owner(operated(), lambda db: tenancy.create_operator(db, name, ends))
    err.print("shown once; only its hash is stored:")
    out.print(token, highlight=False)


@operators.command("list")
@reports_errors
def list_operators(*, as_json: AsJson = False) -> None:
    """List operators' keys by prefix."""

    async def work(database: Database) -> list[stored_operators.StoredOperator]:
        async with database.no_tenant() as tx:
            return await stored_operators.list_all(tx)

    found = as_owner(operated(), work)
    if as_json:
        print_json(found)
        return
    print_rows(
        ("prefix", "name", "since", "last used (UTC)", "ends (UTC)"),
        (
            (
                f"ro_{each.prefix}",
                each.name,
                f"{each.created_at:%Y-%m-%d}",
                f"{each.last_used_at:%Y-%m-%d %H:%M}" if each.last_used_at else "never",
                f"{over:%Y-%m-%d %H:%M}" if (over := each.revoked_at or each.expires_at) else "",
            )
            for each in found
        ),
        none="there are no operators' keys: `runner operators create NAME` makes one",
    )


@operators.command("revoke")
@reports_errors
def revoke_operator(prefix: Annotated[str, typer.Argument(help="As `list` shows it.")]) -> None:
    """End an operator's key at once."""
    as_owner(operated(), lambda db: tenancy.revoke_operator(db, prefix.removeprefix("ro_")))
    out.print("revoked")
