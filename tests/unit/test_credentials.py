"""The deployment's own secrets: a well-known one stops the start, a weak one is reported."""

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from runner.base.settings import Settings
from runner.cli.credentials import Weakness, require_sound, weaknesses
from runner.words.errors import SetupError

STRONG = "f3a1c9e07b52d864f3a1c9e07b52d864"


def given(folder: Path, **settings: Any) -> Settings:
    """Return settings of a deployment in this folder."""
    return Settings(**{"state_dir": folder, **settings})


def found(folder: Path, **settings: Any) -> list[Weakness]:
    """Return the weak secrets in these settings."""
    return weaknesses(given(folder, **settings))


def test_strong_secrets_on_this_host_are_fine(tmp_path: Path) -> None:
    assert found(
        tmp_path,
        database_api_url=f"postgresql://runner_api:{STRONG}@postgres/runner",
        database_worker_url=f"postgresql://runner_worker:{STRONG}@127.0.0.1/runner",
        redis_url="unix:///run/redis.sock",
        secrets_key=base64.b64encode(os.urandom(32)).decode(),
    ) == []  # fmt: skip


@pytest.mark.parametrize("password", ["postgres", "ChangeMe", "123456", "runner"])
@pytest.mark.parametrize("name", ["database_api_url", "redis_url"])
def test_a_password_that_everybody_knows_ends_the_start(
    tmp_path: Path, name: str, password: str
) -> None:
    scheme = "redis" if name == "redis_url" else "postgresql"
    url = f"{scheme}://user:{password}@db.internal/runner"
    with pytest.raises(SetupError) as refused:
        require_sound(given(tmp_path, **{name: url}))
    assert f"RUNNER_{name.upper()}" in refused.value.detail
    require_sound(given(tmp_path, **{name: url.replace(f":{password}@", f":{STRONG}@")}))


def test_a_login_without_a_password_is_told(tmp_path: Path) -> None:
    (weak,) = found(tmp_path, redis_url="redis://127.0.0.1:6379")
    assert (weak.what, weak.fatal) == ("holds no password", False)


def test_a_key_that_is_not_random_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="not random"):
        require_sound(given(tmp_path, secrets_key=base64.b64encode(bytes(32)).decode()))


def test_a_file_that_others_may_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "signing-1.pem"
    path.parent.mkdir()
    path.write_text("key")
    path.chmod(0o640)
    (weak,) = found(tmp_path)
    assert (weak.where, weak.what) == (str(path), "has mode 0640")
    path.chmod(0o600)
    assert found(tmp_path) == []


def test_one_login_for_two_processes_is_told(tmp_path: Path) -> None:
    url = f"postgresql://runner_owner:{STRONG}@postgres/runner"
    (weak,) = found(tmp_path, database_owner_url=url, database_api_url=url)
    assert weak.where == "RUNNER_DATABASE_API_URL"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://u:{}@db.example.com/runner", True),
        ("postgresql://u:{}@db.example.com/runner?sslmode=require", True),
        ("postgresql://u:{}@db.example.com/runner?sslmode=verify-full", False),
        ("postgresql://u:{}@localhost/runner", False),
    ],
)
def test_a_login_that_may_go_out_unencrypted_is_told(tmp_path: Path, url: str, told: bool) -> None:
    assert bool(found(tmp_path, database_api_url=url.format(STRONG))) is told


def test_nothing_that_is_told_holds_a_secret(tmp_path: Path) -> None:
    short = "hunter2-x9"
    told = found(
        tmp_path,
        database_api_url=f"postgresql://u:{short}@db.example.com/runner",
        redis_url=f"redis://:{short}@cache.example.com",
    )
    assert len(told) == 4
    assert short not in repr(told)
