"""No task is left alone: what goes on for ever is a duty, and each other task is awaited."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STARTS = {"create_task", "ensure_future"}

# Where a task begins, and who hears about its failure.
AWAITED = {
    "runner/base/duties.py Duties.doing": "the one place for what goes on for ever",
    "runner/egress/proxy.py Proxy.run": "a task group: one's failure ends the process",
    "runner/egress/share.py Share.start": "a tenant's; who starts it logs what fails",
    "runner/egress/upstream.py": "one look-up, awaited in the same function",
    "runner/sandbox/guest/run.py": "what ends a run, awaited in the same function",
    "runner/sandbox/guest/process.py": "one run, awaited in the same function",
    "runner/sandbox/guest/archives.py _Moving.__call__": "one step, awaited in the same function",
    "runner/sandboxes/copies.py Copies.fork": "one copy, awaited in the same function",
    "runner/sandboxes/foreground.py run": "one process's stdin, awaited in the same function",
    "runner/sandboxes/startup.py _begin": "two commands, awaited in the same function",
    "runner/backup/objects.py _at_once": "one object, awaited in the same function",
    "runner/cli/operate.py images_build.build_all": "one build, awaited in the same function",
    "runner/cli/claude_worker.py _serve": "a task group: one's failure ends the command",
    "runner/api/terminals.py TerminalTalk._talk": "one WebSocket's, awaited in the same function",
    "runner/base/tasks.py": "awaited in the same function",
    "runner/sandbox/guest/meeting.py meet_again": "one return, awaited in the same function",
    "runner/sandbox/guest/intake.py Intake.__init__": "one connection's beginning; `stop` ends it",
    "runner/door/creation.py Creation.__init__": "one knock; `stored` awaits it, `close` ends it",
    "runner/node/residents/beginning.py Beginnings.ahead": "one start; who has the row awaits it",
    "runner/door/streams.py OpenCall.answered": "one call, awaited in the same function",
    "runner/api/mcp/server.py _done": "one tool's call, awaited in the same function",
    "runner/api/e2b/daemon/calls.py Stream._frames": "one answer, awaited in the same function",
    "runner/sandboxes/watchers.py Watchers.begin": "one watcher; who waits or asks gets what fails",
    "runner/api/kept_alive.py kept_alive": "one piece, awaited in the same function",
    "runner/api/gauges.py DeploymentGauges.text": "one reading; all who ask await it",
    "runner/fleet/admission.py NodeAdmission._meet": "one host; it logs what fails",
    "runner/node/contexts/context.py Context._in_background": "one run's; it tells who waits",
    "runner/node/residents/door.py NodeDoor._answers": "one call; it logs what fails",
    "runner/node/residents/far.py FarDoor._meet": "one handshake; it logs what fails",
    "runner/node/residents/freezing.py Freezing._borrow": "one thaw, awaited in the same function",
    "runner/node/residents/freezing.py Freezing._whole": "one change; its caller hears of it",
    "runner/node/residents/resident.py Resident.__init__": "one life; it ends with what fails",
    "runner/node/residents/resident.py Resident.ends": "one end; it logs what fails",
    "runner/node/residents/residents.py Residents.create": "one start, awaited where it is begun",
    "runner/node/residents/residents.py Residents._ended": "one removal; a sweep takes what fails",
    "runner/templates/builds.py Templates._started": "one build; its template says what failed",
    "runner/templates/builds.py Templates._run": "one log, awaited where the build ends",
    "runner/verify/checks/shared.py": "one run, awaited in the same function",
    "runner/node/stock/disposal.py Disposals.later": "one removal; a sweep takes what fails",
    "runner/node/runs/taker.py RingTaker._begin": "one look; it logs what fails, `join` awaits it",
    "runner/node/runs/claimer.py Claimer.run_next": "one execution, awaited in the same function",
    "runner/node/runs/lease.py LeaseKeeper.guard": "one attempt, awaited in the same function",
    "runner/node/stock/pool.py WarmSandboxes._discard": "one removal; a sweep takes what fails",
    "runner/node/runs/recorder.py Recorder._write_soon": "one batch; what fails stays gathered",
}


def begun(code: str) -> Iterator[str]:
    """Yield the qualified names of functions that begin a task."""

    def walk(node: ast.AST, within: tuple[str, ...]) -> Iterator[str]:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            within = (*within, node.name)
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr in STARTS:
            yield ".".join(within)
        if isinstance(called, ast.Name) and called.id in STARTS:
            yield ".".join(within)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, within)

    yield from walk(ast.parse(code), ())


def test_every_task_is_awaited_or_is_a_duty() -> None:
    """A new task is added to the list with its reason, or becomes a duty."""
    unknown, used = [], set()
    for path in sorted((ROOT / "runner").rglob("*.py")):
        module = str(path.relative_to(ROOT))
        for function in begun(path.read_text()):
            names = {module, f"{module} {function}"} & AWAITED.keys()
            used |= names
            unknown += [] if names else [f"{module} {function}"]
    assert unknown == []
    assert used == AWAITED.keys()


@pytest.mark.parametrize(
    "code",
    [
        "async def f():\n    asyncio.create_task(g())",
        "async def f():\n    loop.create_task(g())",
        "async def f():\n    asyncio.ensure_future(g())",
        "from asyncio import create_task\nasync def f():\n    create_task(g())",
    ],
)
def test_a_bare_task_would_be_seen(code: str) -> None:
    """This holds for every way to begin one."""
    assert list(begun(code)) == ["f"]
