"""`runner doctor` refuses a Redis that forgets when it is full, or that lets us do too little."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis as client
from pydantic import SecretStr

from runner.base.settings import Settings
from runner.cli.host import Status
from runner.cli.service_findings import redis
from runner.embedded.process import service_user
from runner.embedded.redis import Redis
from tests.support.deployment import state_folder


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    """Return a real Redis."""
    with state_folder() as folder, ExitStack() as stack:
        folder.chmod(0o777)
        made = Redis(sockets=folder, user=service_user(), logs=folder, patience=1)
        made.start()
        stack.callback(made.stop)
        yield made


@pytest.mark.parametrize(
    ("policy", "status"),
    [("noeviction", Status.OK), ("allkeys-lru", Status.MISSING), ("volatile-ttl", Status.MISSING)],
)
def test_a_redis_must_refuse_when_it_is_full(server: Redis, policy: str, status: Status) -> None:
    with client.Redis.from_url(server.url) as connection:
        connection.config_set("maxmemory-policy", policy)
    (found,) = redis(Settings(redis_url=SecretStr(server.url)))
    assert (found.status, policy in found.value) == (status, True)
    assert (found.advice == "") is (status is Status.OK)


def test_a_redis_that_does_not_answer_is_told_without_its_address(tmp_path: Path) -> None:
    url = f"unix://:secret@{tmp_path}/nobody.sock"
    (found,) = redis(Settings(redis_url=SecretStr(url)))
    assert found.status is Status.MISSING
    assert "secret" not in found.value + found.advice


@pytest.mark.parametrize(
    ("taken", "told"),
    [("", None), ("-time", "read the time"), ("-llen", "is to run"), ("resetchannels", "announce")],
)
def test_a_user_that_may_too_little_is_told(server: Redis, taken: str, told: str | None) -> None:
    """With each right, the same user is fine."""
    rights = "~rq:* &runner:changed -@all +llen +eval +time +publish +info +ping"
    with client.Redis.from_url(server.url) as connection:
        connection.config_set("maxmemory-policy", "noeviction")
        connection.execute_command("ACL", "SETUSER", "some", "reset", "on", ">secret",
                                   *rights.split(), *taken.split())  # fmt: skip
    url = server.url.replace("unix://", "unix://some:secret@")
    (found,) = redis(Settings(redis_url=SecretStr(url)))
    assert found.status is (Status.OK if told is None else Status.MISSING)
    assert (told or "noeviction") in found.value


def test_the_embedded_redis_needs_no_finding() -> None:
    assert list(redis(Settings(redis_url=None))) == []
