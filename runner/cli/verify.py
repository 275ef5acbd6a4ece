"""`runner verify`: tries every attack of the catalogue on this host."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.base.settings import Settings
from runner.cli.console import err, fail, out, reports_errors
from runner.cli.session import operated
from runner.words.sandbox import Isolation

if TYPE_CHECKING:
    from runner.verify.suite import CheckResult


@reports_errors
def verify(
    *,
    isolation: Annotated[
        Isolation, typer.Option(help="The isolation to test.")
    ] = Isolation.CONTAINER,
    living: Annotated[
        bool,
        typer.Option(
            "--living",
            help="Attack as processes of living sandboxes, on terminals and after a pause, too.",
        ),
    ] = False,
    group: Annotated[
        list[str] | None, typer.Option(help="Only checks whose ids begin with this; repeatable.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the signed report.")] = False,
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write the signed report to this file.")
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Describe the checks as Markdown; run none.")
    ] = False,
    unshown: Annotated[
        bool, typer.Option(help="List the checks that could not be shown to fail here, and why.")
    ] = False,
) -> None:
    """Try every attack on this deployment, with each control in place and taken away.

    Exits with 0 only if every attack was stopped, and every check was shown able to fail or says
    why it could not be.
    """
    from runner.base.signing import Signer
    from runner.verify import report
    from runner.verify.checks import every_check

    if list_:
        print(report.page(every_check()), end="")  # noqa: T201 - to be redirected into a file
        return
    settings = operated()
    began = time.monotonic()
    outcomes, facts = asyncio.run(_tried(settings, isolation, tuple(group or ()), living=living))
    if not outcomes:
        fail("no check of that name")
    body = report.document(
        outcomes,
        isolation=isolation,
        node=settings.node_id,
        seconds=time.monotonic() - began,
        **facts,
    )
    signed = Signer.open(settings.state_dir).sign(report.KIND, body)
    if output is not None:
        output.write_text(signed + "\n")
    if json:
        print(signed)  # noqa: T201 - the exact bytes, nothing of a console
    else:
        out.print(report.by_group(outcomes))
        if (in_need := report.in_need(outcomes, unshown=unshown)).row_count:
            out.print(in_need)
        if behind := report.behind(outcomes):
            out.print(behind, highlight=False)
    if not body["good"]:
        raise typer.Exit(1)


async def _tried(
    settings: Settings, isolation: Isolation, groups: tuple[str, ...], *, living: bool
) -> "tuple[list[CheckResult], dict[str, Any]]":
    from runner.verify.bench import Bench
    from runner.verify.checks import every_check
    from runner.verify.guests import LIVING_WAYS, Way
    from runner.verify.suite import run, tried

    checks = [
        check
        for check in tried(every_check(), living=living)
        if not groups or check.id.startswith(groups)
    ]
    ways = LIVING_WAYS if living else (Way.EXECUTION,)
    found = []
    async with Bench.open(settings, isolation, ways=ways) as bench:
        version = (await bench.launcher.engine.info())["version"]
        with err.status("trying") as status:
            async for outcome in run(bench, checks):
                found.append(outcome)
                status.update(f"{len(found)} of {len(checks)}: {outcome.check.title}")
        facts = {
            "docker": str(version.get("Version")), "ways": bench.ways, "tries": bench.tries,
            "runtime": bench.launcher.maker.host.runtime_of(isolation),
        }  # fmt: skip
    return found, facts
