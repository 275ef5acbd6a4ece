"""`runner sandbox events` and `metrics`: a living sandbox's events, and what it uses."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from agent_runner import SandboxEvent
from runner.cli import human
from runner.cli.console import out, read_settings, reports_errors
from runner.cli.ids import find_sandbox
from runner.cli.listing import AsJson, print_json, print_rows
from runner.cli.sandbox_use import SandboxArgument
from runner.cli.session import client
from runner.words.text import escaped, printable


@reports_errors
def events(
    sandbox_id: SandboxArgument,
    after: Annotated[
        str | None, typer.Option(metavar="EVENT", help="The id of the last event you have.")
    ] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the sandbox has ended.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as a line of JSON.")
    ] = False,
) -> None:
    """Print what has happened to a sandbox and in it."""
    with client(read_settings()) as api:
        for event in find_sandbox(api, sandbox_id).events(after=after, follow=follow):
            if as_json:
                line = json.dumps({"id": event.id, "event": event.kind, **event.data})
            else:
                line = printable(_line(event), escaped)
            out.print(line, markup=False, highlight=False, soft_wrap=True)


SHOWN = {
    "cpu_s": "CPU s", "memory_bytes": "memory", "disk_bytes": "disk", "processes": "processes",
    "pids": "pids", "egress_bytes_up": "sent", "egress_bytes_down": "received",
}  # fmt: skip
OF_PORTS = {"port_bytes_in": "into ports", "port_bytes_out": "out of ports"}
"""Of a single sample only: a series with them is wider than 80 columns."""


@reports_errors
def metrics(
    sandbox_id: SandboxArgument,
    *,
    series: Annotated[
        bool, typer.Option("--series", help="What it has used for the last hour.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print what a sandbox uses, now or for the last hour."""
    with client(read_settings()) as api:
        found = find_sandbox(api, sandbox_id)
        samples = found.metrics_series() if series else (found.metrics(),)
    if as_json:
        print_json(samples if series else samples[0])
        return
    # A server that is older than this command knows nothing of ports' bytes.
    shown = SHOWN if series else SHOWN | {k: v for k, v in OF_PORTS.items() if k in samples[0]}
    print_rows(
        ("at", *shown.values()) if series else tuple(shown.values()),
        (_sample(each, shown) for each in samples),
        none="it was not sampled yet",
    )


def _sample(used: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    shown = (_shown(name, used[name]) for name in names)
    return (human.moment(str(used["at"])), *shown) if "at" in used else tuple(shown)


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "?"
    if "bytes" in name:
        return human.size(int(value))
    return f"{value:.2f}" if name == "cpu_s" else f"{value:g}"


def _line(event: SandboxEvent) -> str:
    """Return an event for people: when, what, and its facts that have a value."""
    facts = (
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in event.data.items()
        if name != "at" and value is not None
    )
    at = human.moment(str(event.data["at"]))
    return " ".join((at, f"{event.kind:15}", *facts)).rstrip()
