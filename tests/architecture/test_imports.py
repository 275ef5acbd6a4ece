"""Imports point down the pipeline, and the contracts that say so can fail."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


SEEDED = [
    ("store/db.py", "runner.node.runs.execute", "Imports point down the pipeline"),
    ("words/states.py", "runner.base.tasks", "Imports point down the pipeline"),
    ("words/states.py", "runner.words.execution", "Words are plain"),
    ("node/stock/pool.py", "runner.node.runs.execute", "A node's rooms"),
    ("sandbox/observe/kernel.py", "runner.sandbox.guest.run", "A sandbox's rooms"),
    ("egress/proxy.py", "runner.sandbox.launch", "Imports point down the pipeline"),
    ("network/lookup.py", "runner.egress.policy", "Imports point down the pipeline"),
    ("egress/http.py", "docker", "Only the sandbox speaks to Docker"),
    ("queue/job.py", "runner.auth.keys", "Imports point down the pipeline"),
    ("node/runs/execute.py", "docker", "Only the sandbox speaks to Docker"),
    ("api/app.py", "runner.sandbox.engine.spec", "What listens for clients never reaches"),
    ("client/types.py", "runner.store.db", "The SDK knows the API by HTTP alone"),
    ("node/runs/execute.py", "rq", "RQ stays behind the queue"),
    ("executions/submit.py", "fastapi", "Use cases know no HTTP"),
    ("tenants/policies.py", "starlette", "Use cases know no HTTP"),
]
"""Modules, what each of them must not import, and the contract that says so."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the package and its contracts, to be spoilt at will."""
    return copied(tmp_path)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, str]:
    """Return what is said of a copy with every seeded violation in it."""
    checkout = copied(tmp_path_factory.mktemp("spoilt"))
    for module, imported, _ in SEEDED:
        path = checkout / "runner" / module
        path.write_text(f"{path.read_text()}\nimport {imported}\n")
    return lint(checkout)


def copied(folder: Path) -> Path:
    """Copy the package and its contracts into a folder, and return that."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(
        ROOT / "runner", folder / "runner", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder


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


@pytest.mark.parametrize(("module", "imported", "contract"), SEEDED)
def test_a_seeded_violation_breaks_its_contract(
    spoilt: tuple[bool, str], module: str, imported: str, contract: str
) -> None:
    """The contract names this very import."""
    kept, said = spoilt
    assert not kept
    assert any(contract in each and "BROKEN" in each for each in said.splitlines()), said
    importer = f"runner.{module.removesuffix('.py').replace('/', '.')}"
    assert re.search(rf"^- +{importer} -> {imported} \(l", broken(said, contract), re.MULTILINE), (
        said
    )


def broken(said: str, contract: str) -> str:
    """Return what is said of one broken contract: each has a heading, underlined."""
    _, *sections = re.split(r"^(?=.+\n-{5,}$)", said, flags=re.MULTILINE)
    return next(each for each in sections if contract in each.partition("\n")[0])


def test_a_new_module_needs_a_place_in_the_pipeline(checkout: Path) -> None:
    (checkout / "runner" / "nowhere.py").write_text('"""Belongs to no layer."""\n')
    kept, said = lint(checkout)
    assert not kept, said
