"""Says what is missing from output that was longer than its limit."""

from agent_runner import Event, Execution
from agent_runner.types import Stream, omission
from runner.cli.console import err


def tell_gap(event: Event) -> None:
    """Say on stderr that bytes are missing before this piece of output."""
    if (size := event.data.get("omitted_bytes")) is not None:
        err.print(f"{event.kind}: {omission(size)}", markup=False, highlight=False, soft_wrap=True)


def tell_omitted(ended: Execution) -> None:
    """Say on stderr which output was cut, by how much, and which option keeps more of it."""
    for name, stream in (("stdout", ended.stdout), ("stderr", ended.stderr)):
        if stream is not None and stream.truncated:
            err.print(_told(name, stream), markup=False, highlight=False, soft_wrap=True)


def _told(name: str, stream: Stream) -> str:
    missing = f"{name} was cut: {stream.omitted_bytes:,} of {stream.total_bytes:,} bytes left out"
    if stream.tail:
        return f"{missing} between its beginning and its end; a higher output_kb keeps more"
    return f"{missing} at its end; a higher output_kb or `head_and_tail` keeps more"
