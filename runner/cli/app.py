"""The table of commands."""

import typer

from runner.cli import (
    agents,
    audit,
    backup,
    demo,
    explain,
    files,
    keys,
    mcp,
    members,
    nodes,
    operate,
    operators,
    profile,
    receipt,
    run,
    sandbox,
    secrets,
    serve,
    snapshots,
    templates,
    tenants,
    top,
    usage,
    use,
    verify,
)
from runner.cli.passing_on import PassesOn

app = typer.Typer(
    name="runner",
    help="Self-hosted, multi-tenant runner for code written by AI agents.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
)
app.command("dev")(serve.dev)
app.command("demo")(demo.demo)
app.command("api")(serve.api)
app.command("worker")(serve.worker)
app.command("migrate")(operate.migrate)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("doctor")(operate.doctor)
app.command("top")(top.top)
app.command("verify")(verify.verify)
app.command("run", cls=PassesOn)(run.run)
app.command("mcp")(mcp.mcp)
app.add_typer(agents.agents, name="agents")
app.add_typer(tenants.tenants, name="tenants")
app.add_typer(operators.operators, name="operators")
app.add_typer(nodes.nodes, name="nodes")
app.add_typer(members.members, name="members")
app.command("usage")(usage.usage)
app.add_typer(keys.keys, name="keys")
app.add_typer(operate.images, name="images")
app.add_typer(use.executions, name="executions")
app.command("explain")(explain.explain)
app.add_typer(sandbox.sandbox, name="sandbox")
app.add_typer(snapshots.snapshots, name="snapshot")
app.add_typer(templates.templates, name="templates")
app.add_typer(files.files, name="files")
app.add_typer(audit.audit, name="audit")
app.add_typer(profile.profile, name="profile")
app.add_typer(secrets.secrets, name="secrets")
app.add_typer(receipt.receipt, name="receipt")
app.add_typer(receipt.signing, name="signing")
