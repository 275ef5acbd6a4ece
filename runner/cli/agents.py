"""`runner agents`: agents that live elsewhere, and whose tools run in sandboxes here."""

from typing import Annotated

import typer

from runner.base.settings import ClaudeSettings
from runner.cli.console import read_settings, reports_errors
from runner.cli.run import EgressOption, ImageOption, IsolationOption
from runner.cli.session import reached
from runner.words.errors import SetupError

agents = typer.Typer(
    help="Agents that run elsewhere, and use sandboxes here.", no_args_is_help=True
)


@agents.callback()
def _group() -> None:
    """Keep the name of the service in the command, even while there is only one."""


@agents.command("claude")
@reports_errors
def claude(
    environment: Annotated[
        str, typer.Argument(help="The id of the self-hosted environment, such as env_….")
    ],
    image: ImageOption = None,
    size: Annotated[str | None, typer.Option(help="A size of limits; by default small.")] = None,
    isolation: IsolationOption = None,
    egress: EgressOption = None,
    egress_policy: Annotated[
        str | None, typer.Option(help="An egress policy of the tenant.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="The project of the sandboxes.")] = None,
    unused_s: Annotated[
        float,
        typer.Option(min=60, help="Seconds without a tool call after which a sandbox is killed."),
    ] = 3600,
    idle_s: Annotated[
        float, typer.Option(min=0, help="Seconds after which an idle session is left.")
    ] = 60,
    at_once: Annotated[
        int, typer.Option(min=1, max=100, help="How many sessions to serve at once.")
    ] = 1,
) -> None:
    """Serve sessions of Claude's managed agents: their tools run in sandboxes of this tenant.

    Each session that is queued for the environment gets a fresh sandbox, which is killed when the
    session ends. The environment's key is read from ANTHROPIC_ENVIRONMENT_KEY.
    """
    key = ClaudeSettings().environment_key
    if key is None:
        raise SetupError("ANTHROPIC_ENVIRONMENT_KEY is not set: make a key of the environment")
    try:
        from runner.cli.claude_worker import Queue, serve
    except ModuleNotFoundError as error:
        if error.name != "anthropic":
            raise
        raise SetupError(
            "Anthropic's package is missing: pip install 'agent-runner[claude]'"
        ) from None
    given = {
        "image": image,
        "size": size,
        "isolation": isolation and isolation.value,
        "egress": list(egress or ()) or None,
        "egress_policy": egress_policy,
        "project": project,
    }
    options = {name: value for name, value in given.items() if value is not None}
    queue = Queue(environment, key.get_secret_value(), idle_s=idle_s, at_once=at_once)
    with reached(read_settings()) as address:
        serve(address, queue, {**options, "timeout_s": unused_s})
