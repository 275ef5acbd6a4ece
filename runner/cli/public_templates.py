"""`runner templates public`: the operator makes templates everybody's, in the database.

The other commands on templates speak with an API, so each of these imports what the database takes
when it is called.
"""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from runner.cli.arguments import tenant_name
from runner.cli.console import out, reports_errors
from runner.cli.listing import AsJson, Column, print_json, print_rows
from runner.cli.session import operated
from runner.words.templates import DEFAULT_TAG

if TYPE_CHECKING:
    from runner.store.db import Database
    from runner.store.public_templates import PublicTemplate

public = typer.Typer(
    help="Templates that are everybody's; needs RUNNER_DATABASE_OPERATOR_URL, or `runner dev` "
    "beside it.",
    no_args_is_help=True,
)


@public.command("list")
@reports_errors
def list_public(*, as_json: AsJson = False) -> None:
    """List the templates that every tenant may use."""
    from runner.cli.database import as_operator
    from runner.tenants import publishing

    found = as_operator(operated(), publishing.list_public)
    if as_json:
        print_json(found)
        return
    print_rows(
        ("name", "tag", Column("template", whole=True), Column("tenant", whole=True), "since"),
        (
            (
                each.name,
                each.tag,
                str(each.template_id),
                str(each.tenant_id),
                f"{each.published_at:%Y-%m-%d}",
            )
            for each in found
        ),
        none="no template is everybody's: `runner templates public add TENANT ID` makes one so",
    )


@public.command("add")
@reports_errors
def add(
    tenant: Annotated[
        str, typer.Argument(help="The name of the tenant that built it.", callback=tenant_name)
    ],
    template_id: Annotated[UUID, typer.Argument(metavar="ID", help="The template's id.")],
    tag: Annotated[
        str | None, typer.Option(help="Default: the tag that it was built with.")
    ] = None,
) -> None:
    """Let every tenant list and use a template. None can change it."""
    from runner.auth.caller import By
    from runner.cli.database import as_operator
    from runner.cli.tenants import named_tenant
    from runner.tenants import publishing

    async def work(database: "Database") -> "PublicTemplate":
        owner = await named_tenant(database, tenant)
        return await publishing.publish(database, owner.id, template_id, tag, By())

    made = as_operator(operated(), work)
    out.print(f"{made.name}:{made.tag} is everybody's", markup=False, highlight=False)


@public.command("remove")
@reports_errors
def remove(
    named: Annotated[str, typer.Argument(metavar="NAME[:TAG]", help="The template's name.")],
) -> None:
    """Let a template be its own tenant's alone. What was made of it lives on."""
    from runner.auth.caller import By
    from runner.cli.database import as_operator
    from runner.tenants import publishing

    name, _, tag = named.partition(":")
    tag = tag or DEFAULT_TAG
    as_operator(operated(), lambda database: publishing.take_back(database, name, tag, By()))
    out.print(f"{name}:{tag} is its tenant's alone", markup=False, highlight=False)
