"""Commands by which hosts become nodes: invitations, the admission, and joining."""

import asyncio
import re
import shlex
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from pydantic import Field, TypeAdapter, ValidationError

from runner.auth.caller import By
from runner.base import forms, telemetry
from runner.base.settings import Settings
from runner.base.signing import replace_file
from runner.cli import human
from runner.cli.arguments import MOST_DAYS
from runner.cli.console import (
    err,
    fail,
    out,
    read_settings,
    read_text,
    reports_errors,
    required,
)
from runner.cli.database import as_operator
from runner.cli.listing import AsJson, Column, print_json, print_rows
from runner.cli.serve import stop_requested
from runner.cli.session import operated
from runner.door import joining
from runner.door.joining import MOST_SETTINGS, JoinToken, SettingName, SettingValue
from runner.fleet import invitations
from runner.store.node_invitations import StoredInvitation
from runner.words.text import counted

if TYPE_CHECKING:
    from runner.fleet.admission import AdmissionTerms

SETTINGS_FILE = "node.env"
_MOST_MINUTES = int(invitations.LONGEST.total_seconds()) // 60
_OWN = {"RUNNER_NODE", "RUNNER_STATE_DIR", "RUNNER_DOOR_ADDRESS"}
"""Settings of one host alone."""
_OPERATORS = {f"RUNNER_DATABASE_{who}_URL" for who in ("SUPERUSER", "OWNER", "OPERATOR", "API")}
"""Logins that no node needs."""
_GIVEN: TypeAdapter[dict[str, str]] = TypeAdapter(
    Annotated[dict[SettingName, SettingValue], Field(max_length=MOST_SETTINGS)]
)


def _node_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,63}", text, re.ASCII):
        raise typer.BadParameter("a node's name is 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-'")
    return text


def _place(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return TypeAdapter(forms.Place).validate_python(text)
    except ValidationError:
        raise typer.BadParameter("give a host and a port, such as 10.0.0.1:7444") from None


@reports_errors
def invite(
    node: Annotated[
        str, typer.Argument(help="Its RUNNER_NODE; by default a host's name.", callback=_node_name)
    ],
    minutes: Annotated[
        int, typer.Option(min=1, max=_MOST_MINUTES, help="Minutes for which the token is valid.")
    ] = int(invitations.DEFAULT.total_seconds()) // 60,
    authority_in: Annotated[
        Path | None,
        typer.Option(
            "--authority",
            help="The folder of authority.pem; by default `door` in the state folder.",
        ),
    ] = None,
) -> None:
    """Make a one-time token by which one host joins as this node, and print it, once."""
    settings = operated()
    authority = joining.public_key_of(authority_in or settings.door_certificates)
    lasting = timedelta(minutes=minutes)
    made = as_operator(
        settings, lambda db: invitations.invite(db, node, authority, By(), lasting=lasting)
    )
    err.print(
        f"works once, within {counted(minutes, 'minute')}, for the node {node}; on its host, type "
        "`runner nodes join ADDRESS -` and paste it:",
        highlight=False,
    )
    out.print(made.token, highlight=False, soft_wrap=True)


@reports_errors
def list_invitations(
    *,
    ended: Annotated[
        bool, typer.Option("--all", "-a", help="Also those that were used, revoked or expired.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the invitations whose tokens are still good, newest first."""
    found = as_operator(operated(), lambda db: invitations.list_invitations(db, ended=ended))
    if as_json:
        print_json(found)
        return
    print_rows(
        (Column("invitation", whole=True), "node", "made", "ends (UTC)", "state"),
        (
            (
                str(each.invitation_id),
                each.node,
                human.age(each.made_at.isoformat()),
                f"{each.expires_at:%Y-%m-%d %H:%M}",
                _state(each),
            )
            for each in found
        ),
        none="there are no open invitations: `runner nodes invite NODE` makes one",
    )


@reports_errors
def uninvite(
    invitation: Annotated[UUID, typer.Argument(help="As `runner nodes invitations` shows it.")],
) -> None:
    """End an invitation whose token was not used yet."""
    as_operator(operated(), lambda db: invitations.revoke(db, invitation, By()))
    out.print("revoked")


@reports_errors
def admit(
    authority_in: Annotated[Path, typer.Option("--authority", help="The authority's folder.")],
    listen: Annotated[
        str, typer.Option(help="Host and port at which hosts join.", callback=_place)
    ],
    days: Annotated[
        int, typer.Option(min=1, max=MOST_DAYS, help="Days for which a certificate is valid.")
    ] = 90,
    give: Annotated[
        Path | None, typer.Option(help="File of settings (NAME=VALUE) that each node is given.")
    ] = None,
) -> None:
    """Give certificates to hosts that bring a token, until Ctrl-C. It needs the authority's key."""
    from runner.fleet.admission import AdmissionTerms

    settings = operated()
    telemetry.configure(settings.log_level, json=not err.is_terminal)
    given = _read_settings_file(give) if give is not None else {}
    terms = AdmissionTerms(authority_in, timedelta(days=days), given)
    asyncio.run(_admit(settings, terms, listen))


async def _admit(settings: Settings, terms: "AdmissionTerms", place: str) -> None:
    from runner.fleet.admission import open_admission
    from runner.store.db import Database, require_reachable

    url = required(settings.database_operator_url, "RUNNER_DATABASE_OPERATOR_URL")
    await require_reachable(url)
    stop = stop_requested()
    async with Database(url, max_size=2) as database, open_admission(database, terms, place):
        err.print(f"hosts join at {place}; stop with Ctrl-C", highlight=False)
        await stop.wait()


@reports_errors
def join(
    address: Annotated[
        str, typer.Argument(help="Where `runner nodes admit` listens.", callback=_place)
    ],
    token: Annotated[
        str, typer.Argument(help="What `runner nodes invite` has printed; - reads it from stdin.")
    ],
    door: Annotated[
        str | None,
        typer.Option(help="RUNNER_DOOR_ADDRESS: host and port for the APIs.", callback=_place),
    ] = None,
) -> None:
    """Make this host a node: get its certificate, and write the settings of its worker."""
    settings = read_settings()
    typed = token != "-"  # noqa: S105 - where to read it, not a token
    invited = JoinToken.read((token if typed else sys.stdin.readline()).strip())
    if "node" in settings.model_fields_set and settings.node != invited.node:
        fail(f"RUNNER_NODE is {settings.node}, but the token is for {invited.node}")
    mine = settings.model_copy(update={"node": invited.node})
    given = asyncio.run(joining.join(address, invited, mine.node_id, mine.door_certificates))
    place = door or settings.door_address
    own = {
        **{name: value for name, value in given.items() if name not in _OWN},
        "RUNNER_NODE": invited.node,
        "RUNNER_STATE_DIR": str(mine.state_dir.absolute()),
        **({"RUNNER_DOOR_ADDRESS": place} if place else {}),
    }
    path = mine.state_dir / SETTINGS_FILE
    lines = "".join(f"{name}='{value}'\n" for name, value in sorted(own.items()))
    replace_file(path, lines.encode(), 0o600)
    err.print(f"this host is {mine.node_id}; the settings of its worker are in:", highlight=False)
    out.print(str(path), highlight=False, soft_wrap=True)


def _read_settings_file(path: Path) -> Mapping[str, str]:
    """Return what each node is given. Exits if one of it is for no other host."""
    try:
        pairs = [each.partition("=") for each in shlex.split(read_text(path), comments=True)]
        found = _GIVEN.validate_python({name: value for name, _, value in pairs})
    except ValueError:
        fail(
            f"{path} may hold at most {MOST_SETTINGS} lines RUNNER_NAME=VALUE, without quotes in a "
            "value"
        )
    if wrong := sorted(found.keys() & (_OWN | _OPERATORS)):
        fail(f"{path} sets {wrong[0]}, which is not for other hosts")
    return found


def _state(invitation: StoredInvitation) -> str:
    if invitation.used_as is not None:
        return f"used by {invitation.used_as}"
    if invitation.revoked_at is not None:
        return "revoked"
    return "open" if invitation.open else "expired"
