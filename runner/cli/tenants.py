"""Operators' commands for tenants and their terms."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import typer

from runner.auth.caller import By
from runner.base.settings import Settings
from runner.cli import human
from runner.cli.arguments import MOST_AT_ONCE, MOST_DAYS, reason, tenant_name
from runner.cli.console import err, fail, out, reports_errors
from runner.cli.database import as_operator
from runner.cli.listing import AsJson, print_facts, print_json, print_rows
from runner.cli.session import operated
from runner.quotas.sizes import load_sizes
from runner.quotas.tiers import Quotas, ceiling, load_tiers, overrides
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.store.tenants import Tenant, Terms
from runner.tenants import tenancy
from runner.words.errors import NotFound
from runner.words.execution import JSON
from runner.words.principal import Tier
from runner.words.resources import Limits
from runner.words.sandbox import Isolation
from runner.words.text import counted

T = TypeVar("T")

tenants = typer.Typer(
    help="Tenants; needs RUNNER_DATABASE_OPERATOR_URL, or `runner dev` beside it.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The tenant's name.", callback=tenant_name)]
MaxSize = Annotated[str | None, typer.Option(help="The largest size it may ask for.")]
Concurrency = Annotated[
    int | None, typer.Option(min=1, max=MOST_AT_ONCE, help="Executions it may run at once.")
]
WantedTier = Annotated[Tier | None, typer.Option("--tier", help="Its rates and quotas.")]
RetentionDays = Annotated[
    int | None, typer.Option(min=1, max=MOST_DAYS, help="Days for which executions are kept.")
]
Required = Annotated[
    Isolation | None, typer.Option(help="The isolation that it must use; `container` permits any.")
]

OwnQuotas = Annotated[
    list[str] | None,
    typer.Option("--quota", metavar="NAME=VALUE", help="Replaces the tier's; repeatable."),
]

Reuse = Annotated[
    bool | None,
    typer.Option(
        "--reuse/--no-reuse", help="Let its executions reuse sandboxes of its earlier ones."
    ),
]


@tenants.command("create")
@reports_errors
def create(
    name: Name,
    tier: WantedTier = None,
    max_size: MaxSize = None,
    concurrency: Concurrency = None,
    isolation: Required = None,
    retention_days: RetentionDays = None,
    quota: OwnQuotas = None,
    reuse: Reuse = None,
) -> None:
    """Make a tenant, and print its first key, once."""
    settings = operated()
    terms = Terms(Tier.FREE, max_concurrency=None, max_limits=_size(settings, "large"))
    terms = _changed(
        settings,
        terms,
        tier,
        max_size,
        concurrency,
        isolation,
        retention_days,
        quota,
        reuse=reuse,
    )
    made = as_operator(settings, lambda db: tenancy.create(db, name, terms, By()))
    err.print("shown once; only its hash is stored:")
    out.print(made.token, highlight=False)


@tenants.command("list")
@reports_errors
def list_tenants(*, as_json: AsJson = False) -> None:
    """List every tenant and what it may have."""
    found = as_operator(operated(), _all)
    if as_json:
        print_json(found)
        return
    print_rows(
        ("name", "tier", "at once", "memory", "isolation", "since", "suspended"),
        (
            (
                each.name,
                each.terms.tier.value,
                str(each.terms.max_concurrency or "tier's"),
                f"{each.terms.max_limits.memory_mb} MiB",
                each.terms.required_isolation.value if each.terms.required_isolation else "any",
                f"{each.created_at:%Y-%m-%d}",
                each.suspended_why or "",
            )
            for each in found
        ),
        none="there are no tenants: `runner tenants create NAME` makes one",
    )


@tenants.command("show")
@reports_errors
def show(name: Name, *, as_json: AsJson = False) -> None:
    """Show what a tenant may have: limits of an execution, and quotas."""
    settings = operated()
    found = as_operator(settings, lambda database: named_tenant(database, name))
    terms = found.terms
    sizes = load_sizes(settings.profiles_path)
    quotas = {
        **dataclasses.asdict(load_tiers(settings.profiles_path, sizes)[terms.tier]),
        **({"concurrent": terms.max_concurrency} if terms.max_concurrency else {}),
        **terms.quotas,
    }
    if as_json:
        print_json({**dataclasses.asdict(found), "quotas": quotas})
        return
    limits = dataclasses.asdict(ceiling(terms.max_limits, Quotas(**quotas), sizes))
    print_facts(
        [
            ("name", found.name),
            ("id", str(found.id)),
            ("tier", terms.tier.value),
            ("since", f"{found.created_at:%Y-%m-%d}"),
            ("suspended", found.suspended_why or "no"),
            ("isolation", terms.required_isolation.value if terms.required_isolation else "any"),
            ("reuse", "permitted" if terms.reuse else "not permitted"),
            (
                "executions kept",
                counted(terms.retention_days, "day")
                if terms.retention_days
                else "as the deployment has set",
            ),
            ("at most for each", ", ".join(f"{key} {value:g}" for key, value in limits.items())),
        ]
    )
    print_rows(
        ("quota", "value", ""),
        (
            (
                key,
                human.quantity(key, value) if isinstance(value, int | float) else str(value),
                "its own"
                if key in terms.quotas or (key == "concurrent" and terms.max_concurrency)
                else "its tier's",
            )
            for key, value in quotas.items()
            if key != "max_size"  # "at most for each" says what it and the tenant's terms permit
        ),
        none="",
    )


@tenants.command("set")
@reports_errors
def change(
    name: Name,
    tier: WantedTier = None,
    max_size: MaxSize = None,
    concurrency: Concurrency = None,
    isolation: Required = None,
    retention_days: RetentionDays = None,
    quota: OwnQuotas = None,
    reuse: Reuse = None,
) -> None:
    """Change a tenant's terms; options that you leave out change nothing."""
    settings = operated()

    async def work(database: Database) -> Tenant:
        found = await named_tenant(database, name)
        terms = _changed(
            settings,
            found.terms,
            tier,
            max_size,
            concurrency,
            isolation,
            retention_days,
            quota,
            reuse=reuse,
        )
        return await tenancy.change(database, found.id, terms, By())

    as_operator(settings, work)
    out.print(f"{name}: changed")


@tenants.command("suspend")
@reports_errors
def suspend(
    name: Name,
    why: Annotated[str, typer.Option(help="The reason, which the tenant sees.", callback=reason)],
) -> None:
    """Let a tenant only read; workers end its queued and running executions."""

    async def work(database: Database) -> Tenant:
        return await tenancy.suspend(database, (await named_tenant(database, name)).id, why, By())

    as_operator(operated(), work)
    out.print(f"{name}: suspended")


@tenants.command("resume")
@reports_errors
def resume(name: Name) -> None:
    """End a suspension."""

    async def work(database: Database) -> Tenant:
        return await tenancy.resume(database, (await named_tenant(database, name)).id, By())

    as_operator(operated(), work)
    out.print(f"{name}: resumed")


@tenants.command("delete")
@reports_errors
def delete(
    name: Name,
    confirm: Annotated[str, typer.Option("--yes", help="The tenant's name again.")] = "",
) -> None:
    """Remove a suspended tenant and all its data for good; print what was removed."""
    if confirm != name:
        fail(f"this cannot be undone; say it with --yes {name}")
    settings = operated()

    async def work(database: Database) -> tenancy.Removed:
        found = await named_tenant(database, name)
        objects = ObjectStore.open(settings)
        return await tenancy.delete(database, objects, found.id, By())

    removed = as_operator(settings, work)
    print_rows(
        ("removed", "rows"),
        [
            *((kind, str(rows)) for kind, rows in removed.rows.items()),
            ("stored objects", str(removed.objects)),
        ],
        none="",
    )
    records = counted(removed.audit_records, "record")
    out.print(f"audit log: {records}, last hash {removed.audit_head}")


def _changed(
    settings: Settings,
    terms: Terms,
    tier: Tier | None,
    max_size: str | None,
    concurrency: int | None,
    isolation: Isolation | None,
    retention_days: int | None,
    quotas: list[str] | None,
    *,
    reuse: bool | None,
) -> Terms:
    named: dict[str, Any] = {
        "tier": tier,
        "max_limits": None if max_size is None else _size(settings, max_size),
        "max_concurrency": concurrency,
        "retention_days": retention_days,
        "reuse": reuse,
    }
    given = {key: value for key, value in named.items() if value is not None}
    if isolation is not None:
        given["required_isolation"] = _required(isolation)
    if quotas:
        given["quotas"] = _quotas(settings, terms.quotas, quotas)
    return dataclasses.replace(terms, **given)


def _quotas(
    settings: Settings, before: Mapping[str, JSON], written: list[str]
) -> Mapping[str, JSON]:
    """Return a tenant's own quotas with `NAME=VALUE` set, and the tier's again for `NAME=`."""
    changed = dict(before)
    for name, _, value in (each.partition("=") for each in written):
        changed[name] = int(value) if value.isdecimal() else value
    kept = {name: value for name, value in changed.items() if value != ""}
    return overrides(kept, load_sizes(settings.profiles_path))


def _required(isolation: Isolation) -> Isolation | None:
    """Return the isolation that a tenant must use; None for containers, which all may use."""
    return None if isolation is Isolation.CONTAINER else isolation


def _size(settings: Settings, name: str) -> Limits:
    sizes = load_sizes(settings.profiles_path)
    if name not in sizes:
        fail(f"size {name!r} is not one of {', '.join(sorted(sizes))}")
    return sizes[name]


async def _all(database: Database) -> list[Tenant]:
    found: list[Tenant] = []
    while page := await tenancy.list_by_name(
        database, after=found[-1].name if found else None, limit=200
    ):
        found += page
    return found


async def named_tenant(database: Database, name: str) -> Tenant:
    """Return the tenant of that name. Raises NotFound."""
    for each in await _all(database):
        if each.name == name:
            return each
    raise NotFound(f"there is no tenant {name!r}")
