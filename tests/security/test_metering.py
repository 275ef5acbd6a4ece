"""However an attempt ends, it is charged for what its program used, and has a receipt.

It is charged no less than the program knows that it used, and no more than the kernel has counted
for its container. The worker runs in this process, so that tests can make each of its steps fail.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from collections.abc import Container as Holding
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from agent_runner import Client, Execution
from runner.base.signing import Signer
from runner.node.runs import finish, program
from runner.node.runs.artifacts import ArtifactFiler
from runner.node.runs.attempt import NOT_COLLECTED, Attempt
from runner.node.runs.recorder import Recorder
from runner.sandbox.guest.container import Container
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.observe.cgroups import Cgroups
from runner.store import attempts
from runner.store.objects import ObjectStore
from runner.words.errors import LeaseLost, StoreUnavailable
from runner.words.execution import Stream
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment, eventually
from tests.support.faults import worker_here

CPU_S = 0.3
CHARGED_S = 0.9 * CPU_S
"""The kernel's clocks of a process and of its control group differ a little."""
VALUE = "correct-horse-battery"
PROGRAM = f"""
import os, time
while time.process_time() < {CPU_S}: pass
for name in ("a.txt", "b.txt"): open(name, "w").write("left")
print("done", flush=True)
{{more}}
"""
# It takes longer than output is gathered, so its output is written while it runs.
TALKATIVE = "time.sleep(0.5); print('and again', flush=True); time.sleep(0.5)"


@dataclass(frozen=True)
class Worker:
    """A deployment whose worker runs in this process."""

    deployment: Deployment
    client: Client

    def run(self, more: str = "", **options: Any) -> Execution:
        """Run a program that uses `CPU_S`; it may run again if its worker is lost."""
        submitted = self.client.submit(
            code=PROGRAM.format(more=more), language="python", on_worker_loss="retry", **options
        )
        found: Execution = eventually(
            lambda: (found := self.client.get(submitted.id)).ended and found
        )
        return found

    def charged(self, execution: Execution) -> list[float]:
        """Return the processor time that each attempt was charged."""
        rows = self.deployment.sql(
            "SELECT cpu_s FROM usage_records WHERE execution_id = %s ORDER BY attempt", execution.id
        )
        return [float(row["cpu_s"]) for row in rows]

    def charged_by_the_clock(self, execution: Execution) -> tuple[float, float]:
        """Return what its only attempt was charged, and its CPU limit; it was not measured."""
        (row,) = self.deployment.sql(
            "SELECT cpu_s, cpu_measured, (limits ->> 'cpu')::numeric AS cpu FROM usage_records "
            "JOIN executions USING (execution_id) WHERE execution_id = %s",
            execution.id,
        )
        assert not row["cpu_measured"]
        return float(row["cpu_s"]), float(row["cpu"])

    def receipts(self, execution: Execution) -> int:
        """Return how many receipts the execution has."""
        (row,) = self.deployment.sql(
            "SELECT count(*) AS n FROM receipts WHERE execution_id = %s", execution.id
        )
        return int(row["n"])


@pytest.fixture(scope="module")
def here(image: None) -> Iterator[Worker]:
    """Return a deployment whose worker runs here instead of in a process of its own."""
    # Nobody needs the worker's tracebacks here, and printing them takes seconds.
    with (
        capture_logs(),
        deployments.deployment(slots=2, output_flood_mb=1, **NO_POOL) as made,
        worker_here(made),
    ):
        client = made.client("metered")
        client.put_secret("password", VALUE)
        yield Worker(made, client)


@dataclass
class Groups:
    """Control groups' counts of processor time, which the test reads from the kernel itself."""

    deployment: Deployment
    counted: dict[str, float] = field(default_factory=dict)

    def look(self, container: str) -> None:
        """Note what a container's group has counted, unless it is gone."""
        for pattern, unit in (
            (f"cpuacct/*/{container}/cpuacct.usage", 1e9),
            (f"*/*{container}*/cpu.stat", 1e6),
        ):
            for path in Path("/sys/fs/cgroup").glob(pattern):
                # In version 2 the first line is `usage_usec N`.
                self.counted[container] = int(path.read_text().split("\n")[0].split()[-1]) / unit

    def only(self) -> float:
        """Return the count of the only container, once it is gone."""
        eventually(lambda: self.deployment.containers() == [])
        (seconds,) = self.counted.values()
        return seconds + 1e-6  # Charges are rounded to microseconds.


@pytest.fixture
def groups(here: Worker, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Look at each container of the test before and after it is killed and removed."""
    eventually(lambda: here.deployment.containers() == [])
    found = Groups(here.deployment)

    def looking(original: Callable[..., Any]) -> Callable[..., Any]:
        async def looked(container: Container) -> None:
            found.look(container.id)
            await original(container)
            found.look(container.id)

        return looked

    for name in ("kill", "_remove"):
        monkeypatch.setattr(Container, name, looking(getattr(Container, name)))
    return found


def fails(error: Exception, times: int = 10**6) -> Callable[..., Any]:
    """Return a function that raises the first so many times."""
    left = times

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left >= 0:
                raise error
            return original(*args, **kwargs)

        return call

    return failing


FAULT = RuntimeError("injected")
REFUSED = StoreUnavailable("object store: PermissionDenied; try again")
TOO_LARGE = psycopg.errors.ProgramLimitExceeded("injected")
DATA = psycopg.errors.UniqueViolation("injected")

ENDINGS: dict[str, tuple[Any, str, Callable[..., Any], str]] = {
    "collecting": (Sandbox, "collect", fails(FAULT), "succeeded"),
    "filing an artifact": (ArtifactFiler, "add", fails(FAULT), "succeeded"),
    "an object store that refuses": (ObjectStore, "write", fails(REFUSED), "succeeded"),
    "an object store with a fault": (ObjectStore, "write", fails(FAULT), "succeeded"),
    "the rest of the output": (Recorder, "_mask", fails(FAULT, 1), "succeeded"),
    "events": (Recorder, "_append", fails(FAULT), "succeeded"),
    "masking": (program, "_masked", fails(FAULT), "succeeded"),
    "writing the result, once": (attempts, "finish_with", fails(DATA, 1), "succeeded"),
    "artifacts' rows": (finish, "make_files", fails(DATA, 2), "succeeded"),
    "writing all but the least": (attempts, "finish_with", fails(DATA, 3), "system_error"),
    "a row that is too large": (attempts, "finish_with", fails(TOO_LARGE, 3), "system_error"),
    "signing, once": (Signer, "sign", fails(FAULT, 1), "succeeded"),
    "signing, all but the least": (Signer, "sign", fails(FAULT, 3), "system_error"),
}


@pytest.mark.parametrize("step", ENDINGS)
def test_a_failure_of_ours_neither_repeats_a_run_nor_forgets_its_use(
    here: Worker, groups: Groups, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one attempt, charged like the program's own end, with its receipt."""
    owner, name, failing, state = ENDINGS[step]
    monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    ended = here.run(TALKATIVE if step == "events" else "")
    assert (ended.state, ended.attempt) == (state, 1), ended
    (charged,) = here.charged(ended)
    assert CHARGED_S <= charged <= groups.only()
    assert here.receipts(ended) == 1
    if state == "succeeded":
        assert ended.stdout is not None
        assert ended.stdout.text.startswith("done\n")


OWN_ENDINGS: dict[str, tuple[str, dict[str, Any], str]] = {
    "success": ("", {}, "succeeded"),
    "exit code": ("raise SystemExit(3)", {}, "failed"),
    "signal": ("os.kill(os.getpid(), 9)", {}, "failed"),
    "time limit": ("time.sleep(60)", {"limits": {"timeout_s": 12}}, "timed_out"),
    "memory limit": ("bytearray(10**9); time.sleep(60)", {"size": "nano"}, "out_of_memory"),
    "output limit": ("print('x' * 2**21); time.sleep(60)", {}, "output_limit_exceeded"),
}
"""What the program does when it has used its time, what is submitted with it, and its end.

On a busy host it takes seconds to use it.
"""


@pytest.mark.parametrize("ending", OWN_ENDINGS)
def test_a_programs_own_end_is_charged_as_its_group_counts(
    here: Worker, groups: Groups, ending: str
) -> None:
    more, options, state = OWN_ENDINGS[ending]
    ended = here.run(more, **options)
    assert (ended.state, ended.attempt) == (state, 1), ended
    (charged,) = here.charged(ended)
    assert CHARGED_S <= charged <= groups.only()


def test_a_cancelled_program_is_charged_as_its_group_counts(here: Worker, groups: Groups) -> None:
    submitted = here.client.submit(code=PROGRAM.format(more="time.sleep(60)"), language="python")
    assert any(event.kind == "stdout" for event in here.client.events(submitted.id))
    here.client.cancel(submitted.id)
    ended = here.client.wait(submitted)
    assert ended.state == "cancelled"
    (charged,) = here.charged(ended)
    assert CHARGED_S <= charged <= groups.only()


def test_a_charge_beyond_the_group_is_noticed(
    here: Worker, groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the worker reads four times what the kernel has counted."""
    original = Cgroups.cpu_s

    def too_much(self: Cgroups, container: str) -> float | None:
        seconds = original(self, container)
        return None if seconds is None else 4 * seconds

    monkeypatch.setattr(Cgroups, "cpu_s", too_much)
    (charged,) = here.charged(here.run())
    assert charged > groups.only()


def test_a_result_that_is_never_stored_ends_as_less(
    here: Worker, groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL seems unreachable each time: the worker tries for a while, not for ever."""
    monkeypatch.setattr(finish, "AWAY_S", 0.5)
    monkeypatch.setattr(finish, "LEAST_PATIENCE_S", 0.1)
    original = attempts.finish_with

    async def away(tx: Any, claim: Any, result: Any, *rest: Any) -> Any:
        if result.state != "system_error":
            raise psycopg.OperationalError("injected")
        return await original(tx, claim, result, *rest)

    monkeypatch.setattr(attempts, "finish_with", away)
    ended = here.run()
    assert (ended.state, ended.reason, ended.attempt) == ("system_error", "result_not_stored", 1)
    assert CHARGED_S <= here.charged(ended)[0] <= groups.only()


def test_an_attempt_that_lost_its_lease_writes_nothing_more(
    here: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that writes its output ends with it, even if PostgreSQL accepts none of it."""
    lost: list[Recorder] = []

    async def close(recorder: Recorder, *, cut: Holding[Stream]) -> None:
        lost.append(recorder)
        raise LeaseLost("injected")

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "_append", fails(REFUSED)(Recorder._append))
        patched.setattr(Recorder, "close", close)
        here.client.submit(code=PROGRAM.format(more=TALKATIVE), language="python")
        eventually(lambda: lost)
        timer = lost[0]._timer
        assert timer is not None
        assert eventually(timer.done)


def test_a_worker_that_cannot_sign_still_charges(
    here: Worker, groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the receipt is missing then."""
    monkeypatch.setattr(Signer, "sign", fails(FAULT)(Signer.sign))
    ended = here.run()
    assert (ended.state, ended.reason, ended.attempt) == ("system_error", "result_not_stored", 1)
    assert CHARGED_S <= here.charged(ended)[0] <= groups.only()


def test_a_failure_while_it_runs_is_charged_by_the_clock(
    here: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program is stopped and not run again: the same thing would make the worker fail again."""
    monkeypatch.setattr(Recorder, "add", fails(FAULT)(Recorder.add))
    began = time.monotonic()
    ended = here.run("time.sleep(30)")
    lasted_s = time.monotonic() - began
    assert (ended.state, ended.reason, ended.attempt) == ("system_error", "internal_error", 1)
    charged, limit = here.charged_by_the_clock(ended)
    assert CHARGED_S <= charged <= lasted_s * limit
    assert here.receipts(ended) == 1


def test_without_what_is_known_of_its_end_it_ran_three_times_for_nothing(
    here: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the protection, the tests notice what they look for."""
    monkeypatch.setattr(Sandbox, "collect", fails(FAULT)(Sandbox.collect))
    monkeypatch.setattr(Attempt, "broken_off", lambda *_: None)
    ended = here.run()
    assert (ended.state, ended.attempt) == ("system_error", 3)
    assert here.charged(ended) == [0.0, 0.0, 0.0]


def test_a_stopping_worker_keeps_what_has_run(
    here: Worker, groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is interrupted while it collects: the program's end is known and stays so."""

    async def interrupted(*_: Any, **__: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(Sandbox, "collect", interrupted)
    ended = here.run()
    assert (ended.state, ended.exit_code, ended.attempt) == ("succeeded", 0, 1)
    assert ended.artifacts_refused == (NOT_COLLECTED,)
    assert CHARGED_S <= here.charged(ended)[0] <= groups.only()


def test_what_the_store_refused_is_named(here: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every artifact is listed with the reason; only for the first one is the store asked."""
    asked = []

    async def refuses(self: ObjectStore, key: str, chunks: Any) -> None:
        asked.append(key)
        raise REFUSED

    monkeypatch.setattr(ObjectStore, "write", refuses)
    ended = here.run()
    refused = [f"a.txt: {REFUSED.detail}", f"b.txt: {REFUSED.detail}"]
    assert sorted(ended.artifacts_refused) == refused
    assert len(asked) == 1


STARS = "*" * len(VALUE)
COLLIDING = f"""
for name in ({VALUE!r}, {STARS!r}, {STARS + "~1"!r}, {STARS + "~2"!r}, {STARS + "~1~1"!r}):
    open(name, "w").write(name)
"""


def test_names_that_masking_makes_alike_are_told_apart(here: Worker) -> None:
    """Names are no keys: in one run, each file becomes an artifact with a name of its own."""
    ended = here.run(COLLIDING, secret_env={"PASSWORD": "password"})
    assert (ended.state, ended.attempt) == ("succeeded", 1), ended
    names = [each.path for each in here.client.artifacts(ended.id)]
    assert len(names) == len(set(names)) == 2 + 5
    assert VALUE not in "".join(names)
