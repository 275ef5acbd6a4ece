"""Operators' commands for nodes."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from runner.auth.caller import By
from runner.cli import human, joining
from runner.cli.arguments import MOST_DAYS
from runner.cli.console import err, fail, out, reports_errors
from runner.cli.database import as_operator
from runner.cli.listing import AsJson, Column, print_facts, print_json, print_rows
from runner.cli.session import operated
from runner.door import identity
from runner.door.identity import DoorRole
from runner.door.revocation import REVOKED
from runner.fleet import operating
from runner.fleet.operating import NodeContents
from runner.store.db import Database
from runner.store.nodes import StoredNode
from runner.words.text import counted

MIB = 2**20

nodes = typer.Typer(
    help="Nodes: Docker hosts; needs RUNNER_DATABASE_OPERATOR_URL, or `runner dev` beside it.",
    no_args_is_help=True,
)
nodes.command("invite")(joining.invite)
nodes.command("invitations")(joining.list_invitations)
nodes.command("uninvite")(joining.uninvite)
nodes.command("admit")(joining.admit)
nodes.command("join")(joining.join)
Name = Annotated[
    str, typer.Argument(help="The node's name, or its beginning if no other begins like it.")
]


@nodes.command("list")
@reports_errors
def list_nodes(
    *,
    removed: Annotated[bool, typer.Option("--removed", help="Also list removed nodes.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the nodes, with how much each holds and may hold."""
    found = as_operator(operated(), lambda db: operating.list_nodes(db, removed=removed))
    if as_json:
        print_json(found)
        return
    print_rows(
        (Column("node", whole=True), "state", "runs", "sandboxes", "memory free", "seen"),
        (
            (
                each.node,
                _state(each),
                f"{each.running}/{each.slots}",
                f"{each.living}/{each.sandboxes}",
                f"{_size(each.free_mb)} of {_size(each.memory_mb)}",
                human.age(each.seen_at.isoformat()),
            )
            for each in found
        ),
        none="there are no nodes: `runner worker` makes a host one",
    )


@nodes.command("show")
@reports_errors
def show(name: Name, *, as_json: AsJson = False) -> None:
    """Show a node, and which executions and sandboxes it holds."""

    async def work(database: Database) -> NodeContents:
        return await operating.read(database, await _named(database, name))

    found = as_operator(operated(), work)
    if as_json:
        print_json(found)
        return
    node = found.node
    print_facts(
        [
            ("node", node.node),
            ("state", _state(node)),
            ("version", node.version),
            ("zone", node.zone or "none"),
            ("door", node.door),
            ("isolation", ", ".join(node.isolations)),
            ("images", ", ".join(node.images)),
            ("templates held", str(len(node.templates))),
            ("executions", f"{node.running} of {node.slots}"),
            ("sandboxes", f"{node.living} of {node.sandboxes}"),
            ("processors", str(node.cpus)),
            ("memory free", f"{_size(node.free_mb)} of {_size(node.memory_mb)}"),
            ("joined", human.moment(node.joined_at.isoformat())),
            ("runs since", human.moment(node.started_at.isoformat())),
            ("seen", human.age(node.seen_at.isoformat())),
        ]
    )
    _print_held(found)


@nodes.command("drain")
@reports_errors
def drain(name: Name) -> None:
    """Let a node take nothing new, and list what it still holds."""

    async def work(database: Database) -> NodeContents:
        return await operating.drain(database, await _named(database, name), By())

    found = as_operator(operated(), work)
    out.print(f"{found.node.node}: draining", highlight=False)
    _print_held(found)


@nodes.command("resume")
@reports_errors
def resume(name: Name) -> None:
    """Let a node take executions and sandboxes again, also one that was removed."""

    async def work(database: Database) -> NodeContents:
        return await operating.resume(database, await _named(database, name), By())

    found = as_operator(operated(), work)
    out.print(f"{found.node.node}: {found.node.state.value}", highlight=False)


@nodes.command("remove")
@reports_errors
def remove(name: Name) -> None:
    """Take a node out of the deployment: one that is away, or drained and empty."""

    async def work(database: Database) -> str:
        node = await _named(database, name)
        await operating.remove(database, node, By())
        return node

    out.print(f"{as_operator(operated(), work)}: removed", highlight=False)


@nodes.command("authority")
@reports_errors
def authority(
    folder: Annotated[Path, typer.Argument(help="A folder that no node and no API can read.")],
) -> None:
    """Make the authority that signs the certificates of this deployment's doors, once."""
    identity.make_authority(folder)
    out.print(f"{folder / identity.AUTHORITY_KEY}: keep it secret, and off every host that serves")


@nodes.command("certify")
@reports_errors
def certify(
    name: Annotated[str, typer.Argument(help="The node's whole name, or a name of an API's host.")],
    folder: Annotated[
        Path, typer.Option("--to", help="The folder to make, for `door` in its state folder.")
    ],
    authority_in: Annotated[Path, typer.Option("--authority", help="The authority's folder.")],
    days: Annotated[
        int, typer.Option(min=1, max=MOST_DAYS, help="Days for which it is valid.")
    ] = 90,
    *,
    for_api: Annotated[
        bool, typer.Option("--api", help="Make it for an API, not for a node.")
    ] = False,
) -> None:
    """Make a key and a certificate with which a node answers at its door, or an API knocks."""
    role = DoorRole.API if for_api else DoorRole.NODE
    identity.certify(authority_in, folder, role, name, timedelta(days=days))
    out.print(f"{folder}: {role.value} {name}, for {counted(days, 'day')}", highlight=False)


@nodes.command("revoke")
@reports_errors
def revoke(
    name: Annotated[str, typer.Argument(help="The name that the certificates are for.")],
    authority_in: Annotated[Path, typer.Option("--authority", help="The authority's folder.")],
    *,
    of_api: Annotated[
        bool, typer.Option("--api", help="Revoke an API's certificates, not a node's.")
    ] = False,
) -> None:
    """Take back all certificates that a node or an API was given, before they expire."""
    role = DoorRole.API if of_api else DoorRole.NODE
    number = identity.revoke(authority_in, role, name)
    err.print(
        f"{role.value} {name}: {number} revoked; copy the list to `door` in all state folders"
    )
    out.print(str(authority_in / REVOKED), highlight=False, soft_wrap=True)


async def _named(database: Database, name: str) -> str:
    """Return the name of the one node that is called this, or begins like this."""
    known = [each.node for each in await operating.list_nodes(database, removed=True)]
    found = [name] if name in known else [each for each in known if each.startswith(name)]
    if len(found) != 1:
        what = f"{len(found)} nodes begin with" if found else "there is no node"
        fail(f"{what} {name!r}: `runner nodes list --removed` lists their names")
    return found[0]


def _state(node: StoredNode) -> str:
    return f"{node.state.value}, broken" if node.fault else node.state.value


def _size(mib: int) -> str:
    return human.size(mib * MIB)


def _print_held(found: NodeContents) -> None:
    print_rows(
        ("holds", Column("id", whole=True), "state", "if short", "since"),
        (
            (
                each.kind,
                str(each.id),
                each.state,
                each.on_shortage.value if each.on_shortage else "",
                human.age(each.since.isoformat()),
            )
            for each in found.held
        ),
        none="it holds no execution and no sandbox",
    )
    if found.more:
        out.print(f"and more than these {len(found.held)}")
