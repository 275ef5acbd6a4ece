"""Imports point down the pipeline, and the contracts that say so can fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the package and its contracts, to be spoilt at will."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "runner", tmp_path / "runner", ignore=_ignore)
    return tmp_path


def lint(checkout: Path) -> tuple[bool, str]:
    """Return whether every contract is kept, and what was said."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=checkout,
        env={"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode == 0, done.stdout + done.stderr


def test_the_contracts_hold(checkout: Path) -> None:
    kept, said = lint(checkout)
    assert kept, said


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("store/db.py", "import runner.node.runs.execute", "Imports point down the pipeline"),
        ("words/states.py", "import runner.base.tasks", "Imports point down the pipeline"),
        ("words/states.py", "import runner.words.execution", "Words are plain"),
        ("node/stock/pool.py", "import runner.node.runs.execute", "A node's rooms"),
        ("sandbox/observe/kernel.py", "import runner.sandbox.guest.run", "A sandbox's rooms"),
        ("egress/proxy.py", "import runner.sandbox.launch", "Imports point down the pipeline"),
        ("egress/http.py", "import docker", "Only the sandbox speaks to Docker"),
        ("queue/job.py", "import runner.auth.keys", "Imports point down the pipeline"),
        ("node/runs/execute.py", "import docker", "Only the sandbox speaks to Docker"),
        (
            "api/app.py",
            "import runner.sandbox.engine.spec",
            "What listens for clients never reaches",
        ),
        ("client/types.py", "import runner.store.db", "The SDK knows the API by HTTP alone"),
        ("node/runs/execute.py", "import rq", "RQ stays behind the queue"),
    ],
)
def test_a_seeded_violation_breaks_its_contract(
    checkout: Path, module: str, line: str, contract: str
) -> None:
    spoilt = checkout / "runner" / module
    spoilt.write_text(f"{spoilt.read_text()}\n{line}\n")
    kept, said = lint(checkout)
    assert not kept
    assert any(contract in each and "BROKEN" in each for each in said.splitlines()), said


def test_a_new_module_needs_a_place_in_the_pipeline(checkout: Path) -> None:
    (checkout / "runner" / "nowhere.py").write_text('"""Belongs to no layer."""\n')
    kept, said = lint(checkout)
    assert not kept, said


def _ignore(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__"]
