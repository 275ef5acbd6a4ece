"""Sandboxes: made, listed, killed."""

from runner.api.mcp.arguments import CreateSandboxArguments, NoArguments, SandboxArguments
from runner.api.mcp.results import ToolResult, of_lines
from runner.api.mcp.tool import ToolCall, sandbox_id
from runner.api.new_sandbox import NewSandbox
from runner.store.sandboxes import SandboxListing
from runner.words.lives import Life
from runner.words.living import StoredSandbox

MOST = 50
LIVING = tuple(each for each in Life if each is not Life.ENDED)
MADE_BY = {"made-by": "mcp"}


async def create_sandbox(call: ToolCall, arguments: CreateSandboxArguments) -> ToolResult:
    """Make a sandbox; return once it takes commands."""
    wanted = NewSandbox(**arguments.model_dump(exclude_none=True), metadata=MADE_BY)
    made = await call.parts.sandboxes.create(call.caller, wanted.order())
    return of_lines(f"sandbox_id: {made.id}", *_facts(made))


async def list_sandboxes(call: ToolCall, _: NoArguments) -> ToolResult:
    """List the tenant's sandboxes that have not ended, newest first."""
    found = await call.parts.sandboxes.list_some(
        call.caller, SandboxListing(states=LIVING, limit=MOST + 1)
    )
    lines = ["; ".join((f"sandbox_id: {each.id}", *_facts(each))) for each in found[:MOST]]
    if len(found) > MOST:
        lines.append(f"[only the {MOST} newest are shown]")
    return of_lines(*(lines or ["No sandbox lives. create_sandbox makes one."]))


async def kill_sandbox(call: ToolCall, arguments: SandboxArguments) -> ToolResult:
    """End a sandbox with all that is in it."""
    ended = await call.parts.sandboxes.kill(call.caller, sandbox_id(arguments.sandbox_id))
    return of_lines(f"The sandbox {ended.id} is {ended.state.value}.")


def _facts(sandbox: StoredSandbox) -> list[str]:
    until = sandbox.expires_at
    reaches = ", ".join(str(rule.get("host", "?")) for rule in sandbox.egress)
    return [
        f"state: {sandbox.state.value}",
        f"image: {sandbox.image}",
        f"size: {sandbox.size}",
        f"lives until: {until.isoformat(timespec='seconds') if until else 'it is killed'}",
        f"may reach: {reaches or 'nothing outside'}",
    ]
