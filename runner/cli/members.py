"""Commands for people's accounts: the first owner of a tenant, and forgotten passwords."""

from datetime import timedelta
from typing import Annotated, TypeVar
from uuid import UUID

import typer

from runner.base.settings import Settings
from runner.cli.arguments import tenant_name
from runner.cli.console import err, fail, out, reports_errors
from runner.cli.database import as_owner
from runner.cli.session import operated
from runner.store.db import Database
from runner.words.principal import Role

T = TypeVar("T")

RESET = timedelta(days=1)

members = typer.Typer(
    help="People's accounts; needs RUNNER_DATABASE_OWNER_URL.", no_args_is_help=True
)

SubjectOption = Annotated[
    str, typer.Option(help="What the provider writes into `sub` of their tokens.")
]
EmailOption = Annotated[str, typer.Option("--email", help="Their e-mail address.")]


@members.command("add")
@reports_errors
def add(
    tenant: Annotated[str, typer.Option(help="The tenant's name.", callback=tenant_name)],
    email: EmailOption,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.OWNER,
) -> None:
    """Invite somebody to a tenant, and print the one-time token to hand to them."""
    token = as_owner(operated(), lambda db: _invite(db, tenant, _address(email), role))
    err.print("works once, within seven days; send it with a password to POST /v1/login/accept:")
    out.print(token, highlight=False)


@members.command("reset")
@reports_errors
def reset(email: EmailOption) -> None:
    """Print a one-time token by which somebody who forgot their password sets a new one."""
    token = as_owner(operated(), lambda db: _reset(db, _address(email)))
    err.print("works once, within a day; send it with a new password to POST /v1/login/accept:")
    out.print(token, highlight=False)


@members.command("link")
@reports_errors
def link(
    tenant: Annotated[str, typer.Option(help="The tenant's name.", callback=tenant_name)],
    email: EmailOption,
    subject: SubjectOption,
) -> None:
    """Let a subject of the identity provider (RUNNER_OIDC_ISSUER) act as a member of a tenant."""
    settings = operated()
    as_owner(settings, lambda db: _link(db, settings, tenant, _address(email), subject))
    err.print(f"tokens of this subject now act as {email} in the tenant {tenant}")


@members.command("unlink")
@reports_errors
def unlink(
    tenant: Annotated[str, typer.Option(help="The tenant's name.", callback=tenant_name)],
    email: EmailOption,
    subject: SubjectOption,
) -> None:
    """End what `link` began; requests of this subject end within a second."""
    settings = operated()
    as_owner(settings, lambda db: _unlink(db, settings, tenant, _address(email), subject))
    err.print(f"tokens of this subject act no more as {email} in the tenant {tenant}")


async def _link(db: Database, settings: Settings, tenant: str, email: str, subject: str) -> None:
    from runner.auth.caller import By, TenantActor
    from runner.tenants import identities

    who = TenantActor(await _tenant(db, tenant), By())
    async with db.tenant(who.tenant_id) as tx:
        await identities.link(tx, who, email, _issuer(settings), subject)


async def _unlink(db: Database, settings: Settings, tenant: str, email: str, subject: str) -> None:
    from runner.auth.caller import By, TenantActor
    from runner.tenants import identities

    who = TenantActor(await _tenant(db, tenant), By())
    async with db.tenant(who.tenant_id) as tx:
        await identities.unlink(tx, who, email, _issuer(settings), subject)


def _issuer(settings: Settings) -> str:
    if settings.oidc_issuer is None:
        fail("RUNNER_OIDC_ISSUER is not set: a subject means nothing without its issuer")
    return settings.oidc_issuer


async def _tenant(owner: Database, name: str) -> UUID:
    from runner.store import tenants

    async with owner.no_tenant() as tx:
        tenant_id = await tenants.find(tx, name)
    if tenant_id is None:
        fail(f"there is no tenant {name!r}")
    return tenant_id


async def _invite(owner: Database, tenant: str, email: str, role: Role) -> str:
    from runner.tenants.members import Decider, invite

    tenant_id = await _tenant(owner, tenant)
    async with owner.tenant(tenant_id) as tx:
        made = await invite(tx, Decider(tenant_id), email, role)
    return made.token


async def _reset(owner: Database, email: str) -> str:
    from runner.audit import events as audit
    from runner.audit.events import Action
    from runner.auth.caller import By
    from runner.auth.tokens import digest, new_token
    from runner.store import users

    token = new_token()
    async with owner.no_tenant() as tx:
        user_id = await users.issue_reset(tx, email, digest(token), RESET)
    if user_id is None:
        fail("there is no account of that address")
    event = By().did(Action.PASSWORD_RESET, "user", str(user_id), {"phase": "issued"})
    await audit.append_platform(owner, event)
    return token


def _address(text: str) -> str:
    from pydantic import TypeAdapter, ValidationError

    from runner.api.fields import Email

    try:
        address: str = TypeAdapter(Email).validate_python(text)
    except ValidationError:
        fail("that is not an e-mail address")
    return address
