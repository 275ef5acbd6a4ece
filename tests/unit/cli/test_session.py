"""A command talks to the deployment in the environment, or else to the one that runs here."""

import os
import stat
from pathlib import Path

import pytest

from runner.base.settings import Settings
from runner.cli import address, session
from runner.embedded.hold import held
from runner.words.errors import SetupError

BESIDE = address.Beside(
    url="http://127.0.0.1:8080",
    api_key="rk_x",
    docker_url="unix:///beside/docker.sock",
    superuser_url="postgresql://postgres@/runner?host=/beside",
    owner_url="postgresql://runner_owner@/runner?host=/beside",
    operator_url="postgresql://runner_operator@/runner?host=/beside",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the state folder of an environment that sets nothing else."""
    for name in [name for name in os.environ if name.startswith("RUNNER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RUNNER_STATE_DIR", str(tmp_path))
    return tmp_path


def test_what_runs_beside_is_found_by_the_state_folder_while_it_runs(folder: Path) -> None:
    """Its Docker and its logins are found, too. Only its user may read them."""
    with held(folder), address.announced(Settings(), BESIDE):
        assert address.found(Settings()) == BESIDE
        operated = session.operated()
        assert operated.docker_url == BESIDE.docker_url
        assert operated.database_owner_url is not None
        assert operated.database_owner_url.get_secret_value() == BESIDE.owner_url
        assert operated.database_operator_url is not None
        assert operated.database_operator_url.get_secret_value() == BESIDE.operator_url
        assert stat.S_IMODE((folder / "run" / "dev.json").stat().st_mode) == 0o600
    assert address.found(Settings()) is None
    assert session.operated() == Settings()


def test_what_the_environment_sets_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logins of two deployments are never mixed."""
    monkeypatch.setenv("RUNNER_DOCKER_URL", "unix:///own.sock")
    monkeypatch.setenv("RUNNER_DATABASE_API_URL", "postgresql://api:x@db/x")
    with held(folder), address.announced(Settings(), BESIDE):
        operated = session.operated()
    assert operated.docker_url == "unix:///own.sock"
    assert operated.database_owner_url is None
    assert operated.database_operator_url is None


def test_what_a_killed_one_left_behind_is_not_believed(folder: Path) -> None:
    """By now, its address may belong to somebody else."""
    (folder / "run").mkdir()
    (folder / "run" / "dev.json").write_text(BESIDE.model_dump_json())
    assert address.found(Settings()) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"url": "http://x"}'])
def test_a_file_that_says_nothing_is_named(folder: Path, content: str) -> None:
    with held(folder):
        (folder / "run" / "dev.json").write_text(content)
        with pytest.raises(SetupError, match=r"dev\.json is not what this release writes"):
            address.found(Settings())
