"""Usage is recorded once and adds up; when a quota is used up, a refusal says why."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runner import ApiError, Client, Execution, Invalid, NotPermitted, TooMany
from runner.base.settings import Settings
from runner.words.principal import Role, Tier
from tests.support import deployment as deployments
from tests.support.deployment import Deployment, eventually, state_of
from tests.support.upstreams import Answer, serving

BUSY = "import time\nstop = time.process_time() + 0.3\nwhile time.process_time() < stop: pass\n"
LASTING = "import time; time.sleep({seconds})"
HOARDING = "b = bytearray(10**9); print(len(b))"


def own_quotas(made: Deployment, tenant: str, quotas: str) -> None:
    """Give a tenant quotas of its own."""
    made.sql("UPDATE tenants SET quotas = %s::jsonb WHERE name = %s", quotas, tenant)


def used(client: Client, name: str) -> Any:
    """Return the state of a quota."""
    return next(each for each in client.usage()["quotas"] if each["name"] == name)


def until_runs(client: Client, execution: Execution) -> None:
    """Wait until an execution runs."""
    eventually(lambda: state_of(client, execution)() == "running")


def has_ended(client: Client, execution: Execution) -> bool:
    """Return whether an execution has ended."""
    return client.get(execution.id).ended


def test_the_ledger_adds_up_to_the_executions_own_figures(own: Deployment) -> None:
    """Whatever the end, even a lost worker: each attempt is there once; three sums agree."""
    client = own.client("mixed")

    def run(**submission: Any) -> Execution:
        return client.submit(**{"language": "python", "size": "nano", "wait_s": 30, **submission})

    fine = [run(code=BUSY + "open('left.bin', 'wb').write(b'x' * 1000)") for _ in range(3)]
    failed = run(code=BUSY + "raise SystemExit(3)")
    late = run(code=BUSY + LASTING.format(seconds=20), limits={"timeout_s": 1})
    hoarder = run(code=HOARDING)
    missing = run(code=None, language=None, command=["/no/such/program"])
    cancelled = run(code=LASTING.format(seconds=60), limits={"timeout_s": 10}, wait_s=0)
    until_runs(client, cancelled)
    client.cancel(cancelled.id)
    lost, retried = (
        run(code=LASTING.format(seconds=3), wait_s=0, on_worker_loss=choice)
        for choice in ("fail", "retry")
    )
    for each in (lost, retried):
        until_runs(client, each)
    own.portal.call(own.worker.stop, signal.SIGKILL)
    never = run(code="pass", wait_s=0)
    client.cancel(never.id)
    own.restart_worker()
    submitted = [*fine, failed, late, hoarder, missing, cancelled, lost, retried, never]
    for each in submitted:
        eventually(partial(has_ended, client, each))
    ended = [client.get(each.id) for each in submitted]
    assert [each.state for each in ended] == [
        *["succeeded"] * 3, "failed", "timed_out", "out_of_memory", "failed", "cancelled",
        "system_error", "succeeded", "cancelled",
    ]  # fmt: skip
    report = client.usage()
    total = report["total"]
    assert total["attempts"] == sum(each.attempt for each in ended) == 11
    assert total["wall_s"] == pytest.approx(sum(each.usage["wall_s"] for each in ended), abs=1e-4)
    assert total["cpu_s"] == pytest.approx(sum(cpu_of(each) for each in ended), abs=1e-4)
    # The kernel charges a little less than the program's own clock says (test_metering).
    assert total["cpu_s"] >= 0.9 * 5 * 0.3
    assert total["memory_gib_s"] == pytest.approx(total["wall_s"] * 128 / 1024, abs=1e-4)
    assert total["artifact_bytes"] == 3000
    assert sum(day["used"]["cpu_s"] for day in report["days"]) == pytest.approx(total["cpu_s"])
    assert used(client, "storage_bytes")["used"] == 3000
    assert used(client, "concurrent")["used"] == used(client, "queued")["used"] == 0
    (sums,) = own.sql(
        "SELECT count(*) AS attempts, sum(cpu_s)::float8 AS cpu_s, "
        "count(*) FILTER (WHERE outcome = 'requeued') AS requeued FROM usage_records"
    )
    assert sums == {
        "attempts": 11, "cpu_s": pytest.approx(total["cpu_s"], abs=1e-9), "requeued": 1,
    }  # fmt: skip


def cpu_of(execution: Execution) -> float:
    """Return an execution's CPU-seconds, or the most possible if nobody could read them."""
    if execution.usage["cpu_s"] is None:
        return float(execution.usage["wall_s"]) * 0.5
    return float(execution.usage["cpu_s"])


@pytest.fixture(scope="module")
def waiting(image: None) -> Iterator[Deployment]:
    """Return a deployment in which nothing is claimed."""
    with deployments.deployment() as made:
        made.portal.call(made.worker.stop)
        yield made


def test_a_full_queue_refuses_to_the_place(waiting: Deployment) -> None:
    """Twenty ask at once for five places: five are accepted, fifteen told why, and audited."""
    client = waiting.client("full")
    own_quotas(waiting, "full", '{"queued": 5}')

    def submit(number: int) -> Execution | ApiError:
        try:
            return client.submit(command=["true"], idempotency_key=f"n{number}")
        except ApiError as refused:
            return refused

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(submit, range(20)))
    accepted = {n: each for n, each in enumerate(answers) if isinstance(each, Execution)}
    refused = [each for each in answers if isinstance(each, ApiError)]
    assert (len(accepted), len(refused)) == (5, 15)
    for each in refused:
        assert isinstance(each, TooMany)
        assert each.type == "urn:runner:problem:quota-exceeded"
        assert each.quota == {"name": "queued", "limit": 5, "used": 5.0}
    denied = client.audit(action="execution:submit", outcome="denied")["items"]
    assert len(denied) == 15
    assert denied[0]["record"]["metadata"] == {"quota": "queued", "limit": 5, "used": 5}
    number, first = next(iter(accepted.items()))
    again = submit(number)
    assert isinstance(again, Execution) and again.id == first.id, "a repetition needs no place"
    client.cancel(first.id)
    assert isinstance(submit(99), Execution)
    assert used(client, "queued")["remaining"] == 0


@pytest.mark.parametrize(
    ("table", "columns", "quota", "status"),
    [
        ("usage_days", "now() AT TIME ZONE 'UTC', 1, 0, 1e9, 0, 0, 0, 0", "cpu_s_per_day", 429),
        ("storage_usage", "10^15, 1", "storage_bytes", 403),
    ],
)
def test_what_is_used_up_says_when_it_is_free(
    table: str, columns: str, quota: str, status: int, waiting: Deployment
) -> None:
    """CPU-seconds: at midnight, UTC. Storage: when the tenant deletes something."""
    name = f"used-up-{status}"
    key = waiting.key(name)
    insert = f"INSERT INTO {table} SELECT tenant_id, {columns} FROM tenants WHERE name = %s"  # noqa: S608
    waiting.sql(insert, name)
    answer = httpx.post(
        f"{waiting.url}/v1/executions",
        json={"command": ["true"]},
        headers={"Authorization": f"Bearer {key}"},
    )
    problem = answer.json()
    assert (answer.status_code, problem["quota"]["name"]) == (status, quota)
    if status == 429:
        assert problem["quota"]["frees_at"].endswith("T00:00:00Z")
        assert 0 < int(answer.headers["Retry-After"]) <= 24 * 3600
    else:
        assert "frees_at" not in problem["quota"]
        assert "Retry-After" not in answer.headers


def test_a_size_beyond_the_tier_is_not_possible(waiting: Deployment) -> None:
    """A free tenant's terms may name a larger one; the tier's size holds, and waiting is no use."""
    client = waiting.client("small", tier=Tier.FREE)
    own_quotas(waiting, "small", '{"max_size": "small"}')
    with pytest.raises(Invalid, match="between"):
        client.submit(command=["true"], size="medium")
    assert client.submit(command=["true"], size="small").state == "queued"
    assert client.usage()["max_size"] == "small"


def test_usage_is_read_by_day_and_by_every_role(waiting: Deployment) -> None:
    """A viewer may read it; an invalid or too long time is refused."""
    viewer = waiting.client("seen", Role.VIEWER)
    assert viewer.usage()["total"]["attempts"] == 0
    report = viewer.usage(first="2026-01-01", last="2026-01-31")
    assert (report["first"], report["last"], report["days"]) == ("2026-01-01", "2026-01-31", [])
    for first, last in [("2026-02-01", "2026-01-01"), ("2024-01-01", "2026-01-01"), ("5", None)]:
        with pytest.raises(Invalid):
            viewer.usage(first=first, last=last)
    with pytest.raises(NotPermitted):
        viewer.submit(command=["true"])


def test_the_command_line_shows_it(waiting: Deployment) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "runner", "usage"],
        env={"RUNNER_URL": waiting.url, "RUNNER_API_KEY": waiting.key("shown"), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    (cpu,) = (line for line in shown.splitlines() if line.startswith("cpu_s_per_day"))
    assert "30 d" in cpu
    assert "total" in shown


def test_the_days_egress_bounds_a_run_and_then_refuses(image: None, tmp_path: Path) -> None:
    """A megabyte with 20 kB left for the day: cut off, counted, and none after it; others run."""
    body = b"x" * 1_000_000
    profiles = tmp_path / "profiles"
    shutil.copytree(Settings().profiles_path, profiles)
    with ExitStack() as stack:
        server = stack.enter_context(serving(lambda _: Answer(body)))
        (profiles / "egress" / "ceiling.toml").write_text(
            f'[[allow]]\nhost = "*"\nscheme = "http"\nport = {server.port}\n'
        )
        made = stack.enter_context(
            deployments.deployment(
                profiles_dir=profiles,
                egress_trusted_networks=("127.0.0.0/8",),
                egress_hosts={"big.example.test": "127.0.0.1"},
            )
        )
        client = made.client("reaching")
        own_quotas(made, "reaching", '{"egress_bytes_per_day": 20000}')
        url = f"http://big.example.test:{server.port}"
        # If the budget ends before the answer's head was passed on, the proxy sends a page that
        # says so, and curl -f treats that as a failure.
        fetch = ["curl", "-sf", "-o", "/dev/null", "-w", "%{size_download}", f"{url}/"]
        ran = client.run(command=fetch, egress=[url])
        assert ran.exit_code != 0
        assert ran.egress is not None
        carried = ran.egress["bytes_up"] + ran.egress["bytes_down"]
        assert 20_000 < carried < 200_000
        assert used(client, "egress_bytes_per_day")["used"] == carried
        with pytest.raises(TooMany) as refused:
            client.submit(command=fetch, egress=[url])
        assert refused.value.quota is not None
        assert refused.value.quota["name"] == "egress_bytes_per_day"
        assert client.run(command=["true"]).state == "succeeded"
        own_quotas(made, "reaching", "{}")
        whole = client.run(command=fetch, egress=[url])
        assert whole.stdout is not None and whole.stdout.text == "1000000"
