"""Three hosts with networks and Docker daemons of their own, joined over TLS, while things happen.

`make hosts` does the same more often, and upgrades from an earlier commit.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from benchmarks.hosts import Told, chosen, outlive, three_hosts
from runner.base.settings import Settings
from tests.support.deployment import state_folder
from tests.support.hosts.engine import page_environment
from tests.support.hosts.fleet import NODES, Fleet
from tests.support.hosts.releases import renamed
from tests.support.upstreams import Authority

pytestmark = [pytest.mark.timeout(600), pytest.mark.matrix]
ROUNDS = 1
EVENTS = chosen("power,cable")
"""Those that take the longest way; `make hosts` has all."""
ARTIFACT = {
    "code": "open('kept.txt', 'w').write('kept'); print(1)", "language": "python",
    "size": "nano", "wait_s": 60,
}  # fmt: skip
ENCRYPTED = """
    SELECT usename, host(client_addr) AS host, bool_and(ssl) AS ssl, min(version) AS version
    FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
    WHERE usename LIKE 'runner%%' GROUP BY 1, 2"""


@pytest.fixture(scope="module")
def made(image: None) -> Iterator[Fleet]:
    """Return a deployment of three hosts."""
    with state_folder() as folder, three_hosts(folder, Settings().docker_url) as running:
        running.all_ready(running.operator())
        yield running


@pytest.fixture(scope="module")
def told(made: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Return what became of it when each of them had happened to it once."""
    release = renamed("0.0.9", tmp_path_factory.mktemp("release") / "other")
    return outlive(made, EVENTS, ROUNDS, release)


def test_each_host_reaches_postgresql_by_tls_with_the_login_of_a_worker(made: Fleet) -> None:
    rows = made.sql(ENCRYPTED)
    logins = {each["host"]: each["usename"] for each in rows if each["usename"] == "runner_worker"}
    assert set(logins) == {each.machine.address for each in made.nodes}
    assert {(each["ssl"], each["version"]) for each in rows} == {(True, "TLSv1.3")}


def test_postgresql_takes_nothing_else(made: Fleet, tmp_path: Path) -> None:
    """Without TLS it refuses; with another authority, the client does. With both, it works."""
    url = made.engine.settings_of("worker")["RUNNER_DATABASE_WORKER_URL"]
    psycopg.connect(url).close()
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(url.replace("verify-full", "disable"))
    stranger = Authority(tmp_path).path
    with pytest.raises(psycopg.OperationalError, match="SSL error"):
        psycopg.connect(url.replace(str(made.engine.authority), str(stranger)))


def test_a_worker_sees_of_redis_only_what_is_to_run(made: Fleet, tmp_path: Path) -> None:
    """The API's login sees more, so the refusal is the user's and not the server's."""
    urls = page_environment(made.engine)
    key = "runner:rate:2:test"
    with redis.Redis.from_url(urls["REDIS_WORKER"]) as worker:
        assert worker.llen("rq:queue:executions") >= 0
        for forbidden in (
            lambda: worker.get(key), worker.flushall, lambda: worker.keys("*"),
            lambda: worker.config_get("*"), worker.acl_list, worker.client_list,
        ):  # fmt: skip
            with pytest.raises(redis.exceptions.NoPermissionError):
                forbidden()
    with redis.Redis.from_url(urls["REDIS_API"]) as api:
        assert api.get(key) is None
    stranger = urls["REDIS_API"].replace(str(made.engine.authority), str(Authority(tmp_path).path))
    with (
        redis.Redis.from_url(stranger) as other,
        pytest.raises(redis.exceptions.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        other.ping()


def test_the_doctor_says_how_each_service_is_reached(made: Fleet) -> None:
    printed = made.command("doctor", "--json", process="worker").stdout
    said = {each["name"]: each for each in json.loads(printed)}
    assert "over TLSv1.3" in said["PostgreSQL"]["value"]
    assert said["PostgreSQL"]["status"] == "ok"
    assert said["Redis"]["value"] == "over TLS, maxmemory-policy noeviction"
    assert said["platform secrets"]["status"] == "ok", said["platform secrets"]


def test_all_hosts_take_executions_and_sandboxes(made: Fleet) -> None:
    """Artifacts are in the bucket, whoever made them; sandboxes are reached at their own doors."""
    names = {each.name for each in made.nodes}
    client, operator = made.http("spread"), made.operator()
    doors = {each["node"]: each["door"] for each in operator.get(NODES).json()["items"]}
    assert {door.partition(":")[0] for door in doors.values()} == {"tls"}
    seen: set[str] = set()
    sandboxes: dict[str, str] = {}
    while seen != names:
        ran = client.post("/v1/executions", json=ARTIFACT).raise_for_status().json()
        kept = client.get(f"/v1/executions/{ran['id']}/artifacts/kept.txt").raise_for_status()
        assert kept.content == b"kept"
        (row,) = made.sql("SELECT node FROM executions WHERE execution_id = %s", ran["id"])
        seen.add(row["node"])
    while set(sandboxes) != names:
        id_ = client.post("/v1/sandboxes", json={"size": "nano"}).raise_for_status().json()["id"]
        (row,) = made.sql("SELECT node FROM sandboxes WHERE sandbox_id = %s", id_)
        sandboxes[row["node"]] = id_
        asked = {"command": ["echo", id_], "wait_s": 30}
        assert id_ in client.post(f"/v1/sandboxes/{id_}/processes", json=asked).text
    assert len(sandboxes) == len(names)
    for row in made.sql("SELECT sandbox_id FROM sandboxes WHERE state <> 'ended'"):
        client.delete(f"/v1/sandboxes/{row['sandbox_id']}").raise_for_status()


def test_nothing_is_lost_doubled_or_left_behind(told: Told) -> None:
    """`tests/unit/test_stress.py` shows that losses would be seen."""
    assert told.wrong == []


def test_everything_has_happened_under_load(told: Told) -> None:
    assert {each.name: each.rounds for each in told.events} == {
        each.name: ROUNDS for each in EVENTS
    }
    assert told.accepted > 10 * len(EVENTS)
    assert told.visited > 0
