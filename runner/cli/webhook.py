"""The webhook that gets a tenant's audit log."""

from typing import Annotated

import typer

from runner.cli.console import err, out, read_settings, reports_errors
from runner.cli.listing import AsJson, print_facts, print_json
from runner.cli.session import client

webhook = typer.Typer(help="Where the audit log is forwarded to.", no_args_is_help=True)


@webhook.command("set")
@reports_errors
def set_webhook(url: Annotated[str, typer.Argument(help="https://…")]) -> None:
    """Forward the log to this address; print the secret that signs deliveries, once."""
    with client(read_settings()) as api:
        made = api.put_audit_webhook(url)
    err.print("shown once; deliveries are signed with it as Standard Webhooks says:")
    out.print(made["secret"], highlight=False, soft_wrap=True)


@webhook.command("show")
@reports_errors
def show_webhook(*, as_json: AsJson = False) -> None:
    """Show where the log is forwarded to, and how far that has got."""
    with client(read_settings()) as api:
        found = api.audit_webhook()
    if as_json:
        print_json(found)
        return
    print_facts((name, str(value)) for name, value in found.items() if value is not None)


@webhook.command("delete")
@reports_errors
def delete_webhook() -> None:
    """Stop forwarding the log."""
    with client(read_settings()) as api:
        api.delete_audit_webhook()
