"""Commands in sandboxes. A command ends with the call that waits for it."""

from contextlib import suppress

from runner.api.edge.fair import waits
from runner.api.mcp.arguments import RunCommandArguments
from runner.api.mcp.results import Excerpt, ToolResult, of_lines, outputs
from runner.api.mcp.tool import ToolCall, sandbox_id
from runner.api.sandbox_requests import RUNS
from runner.api.sandbox_views import signal_name
from runner.base.tasks import uninterrupted
from runner.words.errors import RunnerError
from runner.words.execution import Stream
from runner.words.living import Launch, OutputGap, ProcessEnd

TAG = "mcp"


async def run_command(call: ToolCall, arguments: RunCommandArguments) -> ToolResult:
    """Run a line of bash and wait for its end; kill it if nobody waits any more."""
    using, caller = call.parts.using, call.caller
    id_ = sandbox_id(arguments.sandbox_id)
    launch = Launch(
        argv=(*RUNS["bash"], "--", arguments.command),
        cwd=arguments.cwd,
        timeout_s=None if arguments.background else arguments.timeout_s,
        tag=TAG,
    )
    if arguments.background:
        async with using.start(caller, id_, launch, attach=False) as started:
            return of_lines(
                f"Process {started.process.number} runs in the background, until it ends or the "
                "sandbox does."
            )
    stdout, stderr = Excerpt(), Excerpt()
    call.progress.total_s, call.progress.output = arguments.timeout_s, stdout
    async with using.start(caller, id_, launch) as stream:
        waits(call.request)
        try:
            async for piece in stream.output():
                if isinstance(piece, OutputGap):
                    stdout.lose(piece.omitted)
                else:
                    (stdout if piece.stream is Stream.STDOUT else stderr).take(piece.data)
        finally:
            if stream.end is None:
                # If the sandbox has ended, so has the command.
                with suppress(RunnerError):
                    await uninterrupted(using.forget(caller, id_, stream.process.number))
    return of_lines(_ended(stream.end, arguments.timeout_s), *outputs(stdout, stderr))


def _ended(end: ProcessEnd | None, timeout_s: float) -> str:
    if end is None:
        return "Nobody knows how it ended."
    if end.timed_out:
        return f"Killed: it took longer than {timeout_s:g} s. timeout_s sets how long it may take."
    if end.signal is not None:
        return f"Ended by {signal_name(end.signal)}."
    return f"exit code: {end.exit_code}"
