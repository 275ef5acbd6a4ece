"""API keys: made by the operator; listed, rotated and revoked with a key of their tenant."""

from collections.abc import Iterator
from typing import Annotated

import typer

from agent_runner import ApiKey, Client
from runner.auth.keys import in_e2b_form
from runner.cli import human
from runner.cli.arguments import MOST_AT_ONCE, label, tenant_name
from runner.cli.console import err, fail, out, read_settings, reports_errors
from runner.cli.database import as_owner
from runner.cli.listing import AsJson, Column, print_json, print_rows
from runner.cli.session import client, operated
from runner.quotas.sizes import load_sizes
from runner.tenants.tenancy import create_key
from runner.words.principal import Role, Tier
from runner.words.sandbox import Isolation

keys = typer.Typer(help="API keys.", no_args_is_help=True)

KeyArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="Its prefix, as `keys list` shows it, or its id.")
]


@keys.command("create")
@reports_errors
def create(
    tenant: Annotated[
        str, typer.Option(help="The tenant; made if it is new.", callback=tenant_name)
    ],
    role: Annotated[Role, typer.Option(help="What the key may do.")] = Role.OWNER,
    name: Annotated[str, typer.Option(help="What the key is for.", callback=label)] = "bootstrap",
    max_size: Annotated[
        str, typer.Option(help="The largest size a new tenant may ask for.")
    ] = "large",
    tier: Annotated[Tier, typer.Option(help="What rates and quotas a new tenant has.")] = Tier.FREE,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_AT_ONCE,
            help="Executions a new tenant may run at once, instead of its tier's.",
        ),
    ] = None,
    isolation: Annotated[
        Isolation | None,
        typer.Option(help="The isolation that a new tenant must use; by default it may choose."),
    ] = None,
    *,
    e2b: Annotated[
        bool, typer.Option("--e2b", help="Print it as E2B's clients want it, for E2B_API_KEY.")
    ] = False,
) -> None:
    """Make an API key and print it, once."""
    settings = operated()
    sizes = load_sizes(settings.profiles_path)
    if max_size not in sizes:
        fail(f"size {max_size!r} is not one of {', '.join(sorted(sizes))}")

    made = as_owner(
        settings,
        lambda owner: create_key(
            owner,
            tenant=tenant,
            role=role,
            name=name,
            max_limits=sizes[max_size],
            tier=tier,
            max_concurrency=concurrency,
            required_isolation=Isolation.GVISOR if isolation is Isolation.GVISOR else None,
        ),
    )
    if made.of_new_tenant:
        err.print(f"there was no tenant {tenant!r}: it was made, too", highlight=False)
    err.print("shown once; only its hash is stored:")
    out.print(in_e2b_form(made.token) if e2b else made.token, highlight=False, soft_wrap=True)


@keys.command("list")
@reports_errors
def list_keys(
    *,
    ended: Annotated[
        bool, typer.Option("--all", "-a", help="Also those that were revoked.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the API keys of the tenant that RUNNER_API_KEY belongs to, newest first."""
    with client(read_settings()) as api:
        found = [each for each in api.keys.list() if ended or each.revoked_at is None]
    if as_json:
        print_json(found)
        return
    print_rows(
        (Column("key", whole=True), "role", "name", "created", "last used", "ends (UTC)"),
        (
            (
                each.prefix,
                each.role,
                each.name,
                human.age(each.created_at),
                human.age(each.last_used_at) if each.last_used_at else "never",
                _end(each),
            )
            for each in found
        ),
        none="there are no keys",
    )


@keys.command("revoke")
@reports_errors
def revoke(key: KeyArgument) -> None:
    """End a key at once, and the keys and invitations that it made."""
    with client(read_settings()) as api:
        found = _named(api, key)
        api.keys.revoke(found.id)
    err.print(f"{found.prefix} is revoked", highlight=False)


@keys.command("rotate")
@reports_errors
def rotate(
    key: KeyArgument,
    overlap_s: Annotated[
        float | None, typer.Option(min=0, help="Seconds for which the old key stays valid.")
    ] = None,
) -> None:
    """Make a key with the same rights in its place, and print it, once."""
    with client(read_settings()) as api:
        made = api.keys.rotate(_named(api, key).id, overlap_s=overlap_s)
    err.print("shown once; only its hash is stored:")
    out.print(made.token, highlight=False, soft_wrap=True)


def _end(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {human.moment(key.revoked_at)}"
    return human.moment(key.expires_at) if key.expires_at else "no end"


def _named(api: Client, given: str) -> ApiKey:
    """Return the key with this prefix or id, or end the command."""
    found: Iterator[ApiKey] = (each for each in api.keys.list() if given in (each.prefix, each.id))
    if (key := next(found, None)) is None:
        fail(f"no key of this tenant has the prefix or id {given}: see `runner keys list --all`")
    return key
