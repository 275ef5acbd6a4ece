"""An operator's own folder of profiles: sizes that requests may name, and what it must hold."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent_runner import ApiError
from runner.base.settings import Settings
from tests.support import deployment as deployments


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """Return a copy of the shipped folder for changes."""
    tmp_path.chmod(0o755)
    return Path(shutil.copytree(Settings().profiles_path, tmp_path / "profiles"))


def test_a_size_of_the_operators_own_is_used_by_its_name(profiles: Path) -> None:
    (profiles / "limits" / "tiny-notebook.toml").write_text(
        "cpu = 0.5\nmemory_mb = 96\npids = 20\ndisk_mb = 8\ntimeout_s = 5\noutput_kb = 16\n"
    )
    with deployments.deployment(profiles_dir=profiles) as made:
        client = made.client("author")
        ended = client.run(code="ulimit -f; df -m .", language="bash", size="tiny-notebook")
        assert ended.state == "succeeded"
        assert ended.stdout is not None
        assert ended.stdout.text.splitlines()[0] == str(8 * 1024)
        with pytest.raises(ApiError, match="tiny-notebook"):
            client.submit(code="true", language="bash", size="no-such-size")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("seccomp/default.json", "{", "default.json is not valid"),
        ("seccomp/default.json", None, "default.json cannot be read"),
    ],
    ids=["broken", "missing"],
)
def test_a_worker_does_not_start_with_a_profile_it_cannot_enforce(
    profiles: Path, tmp_path: Path, file: str, text: str | None, message: str
) -> None:
    """One line names the file, the exit code is 78, and nothing was started."""
    path = profiles / file
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    worker = subprocess.run(
        [sys.executable, "-m", "runner", "worker"],
        env={
            **os.environ,
            "COLUMNS": "300",
            "RUNNER_STATE_DIR": str(tmp_path / "state"),
            "RUNNER_PROFILES_DIR": str(profiles),
            "RUNNER_DATABASE_WORKER_URL": "postgresql://nobody@127.0.0.1:1/none",
            "RUNNER_REDIS_URL": "redis://127.0.0.1:1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert worker.returncode == 78, worker.stderr
    assert message in worker.stderr
    assert "Traceback" not in worker.stderr
