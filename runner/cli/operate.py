"""Commands of the operator: schema, images, and what this host offers."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import SecretStr
from rich.text import Text

from runner.base.settings import Settings
from runner.cli import host, human
from runner.cli.console import err, out, plain, reports_errors, required
from runner.cli.crun_findings import crun
from runner.cli.database import as_owner
from runner.cli.listing import AsJson, Column, print_json, print_rows
from runner.cli.service_findings import services
from runner.cli.session import operated
from runner.quotas.sizes import load_sizes
from runner.quotas.tiers import load_tiers
from runner.store import migrations
from runner.tenants.tenancy import publish_tiers
from runner.words.errors import DockerUnavailable, SetupError

if TYPE_CHECKING:
    from runner.sandbox.engine.docker import Engine
    from runner.sandbox.engine.images import BuiltImage

images = typer.Typer(help="Sandbox images.", no_args_is_help=True)

BUILDS_AT_ONCE = 2
"""Each is busy on one processor most of the time, and takes a gigabyte of disk."""
DIGITS = 12
"""Characters of a digest, as Docker shows it."""
MARKS = {
    host.Status.OK: "[green]ok[/]",
    host.Status.WARN: "[yellow]warn[/]",
    host.Status.MISSING: "[red]missing[/]",
}


@reports_errors
def migrate(
    *,
    planned: Annotated[
        bool, typer.Option("--plan", help="Say what would be done, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring schema and tiers' quotas up to date; needs RUNNER_DATABASE_OWNER_URL."""
    settings = operated()
    if planned:
        _plan(required(settings.database_owner_url, "RUNNER_DATABASE_OWNER_URL"), as_json=as_json)
        return
    if as_json:
        raise SetupError("--json prints what --plan found: give both")
    tiers = load_tiers(settings.profiles_path, load_sizes(settings.profiles_path))
    logins = (
        settings.database_operator_url, settings.database_api_url, settings.database_worker_url
    )  # fmt: skip
    owner = required(settings.database_owner_url, "RUNNER_DATABASE_OWNER_URL")
    migrations.migrate(owner, *(url for url in logins if url))
    as_owner(settings, lambda database: publish_tiers(database, tiers))
    out.print("schema is up to date")


def _plan(owner: SecretStr, *, as_json: bool) -> None:
    from runner.store.migrations.plan import LockedOut, plan

    found = plan(owner)
    if as_json:
        print_json(found)
        return
    print_rows(
        (Column("revision", whole=True), "does", "nobody uses", "nobody writes", "changes rows of",
         "reversible"),
        (
            (
                each.revision,
                each.does,
                *(
                    ", ".join(name for name, who in each.locks.items() if who is whom)
                    for whom in (LockedOut.EVERYBODY, LockedOut.WRITERS)
                ),
                ", ".join(each.writes),
                "yes" if each.reversible else "no",
            )
            for each in found.revisions
        ),
        none=f"nothing to do: the schema is at revision {found.head}",
    )  # fmt: skip
    if found.revisions:
        err.print(
            f"from revision {found.now or 'none, an empty database,'} to {found.head}, in one "
            "transaction: while it runs, others wait for the tables that nobody uses or writes. "
            "To go back, restore a backup.",
            highlight=False,
        )


@images.command("build")
@reports_errors
def images_build(
    name: Annotated[list[str] | None, typer.Argument(help="Default: every image in use.")] = None,
) -> None:
    """Build sandbox images from this host's own Debian or Ubuntu packages; cached."""
    from runner.sandbox.engine.images import Images

    settings = operated()

    async def build(image: str) -> "BuiltImage":
        async with engine(settings) as docker:
            return await Images(docker, settings.recipes_path).build(image, settings)

    async def build_all(names: Sequence[str]) -> None:
        turns = asyncio.Semaphore(BUILDS_AT_ONCE)

        async def in_turn(image: str) -> "BuiltImage":
            async with turns:
                return await build(image)

        building = [asyncio.ensure_future(in_turn(image)) for image in names]
        try:
            for image, each in zip(names, building, strict=True):
                with err.status(f"image {image}: looking, or building for a minute or two"):
                    built = await each
                out.print(f"{built.name}  {built.digest}", highlight=False)
        finally:
            for each in building:
                each.cancel()
            await asyncio.wait(building)

    asyncio.run(build_all(name or settings.images))


@images.command("list")
@reports_errors
def images_list(*, as_json: AsJson = False) -> None:
    """List the sandbox images on this host."""
    from runner.sandbox.engine.images import Images

    settings = operated()

    async def collect() -> "list[BuiltImage]":
        async with engine(settings) as docker:
            return await Images(docker, settings.recipes_path).list_images()

    found = asyncio.run(collect())
    if as_json:
        print_json(found)
        return
    print_rows(
        ("name", "digest", "size", "recipe"),
        (
            (each.name, _short(each.digest), human.size(each.size_bytes), each.recipe[:DIGITS])
            for each in found
        ),
        none="no sandbox image is on this host: `runner images build` makes those in use",
    )


@reports_errors
def doctor(*, as_json: AsJson = False) -> None:
    """Say what this host offers, what is missing, and what to do about it."""
    settings = operated()
    docker = asyncio.run(_docker_facts(settings))
    findings = host.examine(settings, docker)
    if docker is not None:
        findings.append(asyncio.run(crun(settings, docker)))
    findings += services(settings)
    if as_json:
        print_json(findings)
    else:
        print_rows(("", "part", "found"), map(_finding, findings), none="")
    if any(finding.status is host.Status.MISSING for finding in findings):
        raise typer.Exit(1)


def _finding(finding: host.Finding) -> tuple[Text, str, Text]:
    said = plain(finding.value)
    if finding.advice:
        # In a pipe each finding is one line.
        said.append(("\n→ " if out.is_terminal else ": ") + finding.advice, "yellow")
    return Text.from_markup(MARKS[finding.status]), finding.name, said


def _short(digest: str) -> str:
    """Return a digest as Docker shows and takes it."""
    kind, _, digits = digest.partition(":")
    return f"{kind}:{digits[:DIGITS]}"


def engine(settings: Settings) -> "Engine":
    """Return a connection to Docker for one command."""
    from runner.sandbox.engine.docker import Engine

    timeout_s = settings.patient(settings.docker_timeout_s)
    return Engine(settings.docker_url, timeout_s=timeout_s, threads=2)


async def _docker_facts(settings: Settings) -> dict[str, Any] | None:
    try:
        async with engine(settings) as docker:
            return await docker.info()
    except DockerUnavailable:
        return None
