"""Imports follow the order of the folders, and the contracts that say so are able to fail."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SDK = ROOT / "sdk" / "python" / "src" / "agent_runner"
FRAMEWORKS = {
    "adk": {"google"},
    "commands": {"anyio"},
    "deepagents": {"deepagents"},
    "deepagents_code": {"deepagents_code"},
    "inspect": {"anyio", "inspect_ai", "pydantic"},
    "openai_agents/client": {"agents"},
    "openai_agents/session": {"agents"},
    "openai_agents/state": {"agents"},
    "openai_agents/terminals": {"agents"},
    "pydantic_ai": {"pydantic_ai"},
    "smolagents": {"PIL", "smolagents"},
}
"""The packages of its framework that an adapter imports; no other module does."""
SDK_NEEDS = {"agent_runner", "httpx", "httpx_sse", "websockets"}
"""The packages that the SDK may import besides Python's own library."""


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
    ("sandboxes/living.py", "agent_runner", "Only the command line is a client"),
    ("node/runs/execute.py", "rq", "RQ stays behind the queue"),
    ("executions/submit.py", "fastapi", "Use cases know no HTTP"),
    ("tenants/policies.py", "starlette", "Use cases know no HTTP"),
]
"""Modules, a module that each of them must not import, and the contract that forbids it."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the package and its contracts for tests to spoil."""
    return copied(tmp_path)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, str]:
    """Return the report on a copy that has every seeded violation."""
    checkout = copied(tmp_path_factory.mktemp("spoilt"))
    for module, imported, _ in SEEDED:
        path = checkout / "runner" / module
        path.write_text(f"{path.read_text()}\nimport {imported}\n")
    return lint(checkout)


def copied(folder: Path) -> Path:
    """Copy the package and its contracts into a folder, and return the copy."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(
        ROOT / "runner", folder / "runner", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder


def lint(checkout: Path) -> tuple[bool, str]:
    """Return whether every contract is kept, and the report."""
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
    """The contract names exactly this import."""
    kept, said = spoilt
    assert not kept
    assert any(contract in each and "BROKEN" in each for each in said.splitlines()), said
    importer = f"runner.{module.removesuffix('.py').replace('/', '.')}"
    assert re.search(rf"^- +{importer} -> {imported} \(l", broken(said, contract), re.MULTILINE), (
        said
    )


def broken(said: str, contract: str) -> str:
    """Return the report on one broken contract: each has an underlined heading."""
    _, *sections = re.split(r"^(?=.+\n-{5,}$)", said, flags=re.MULTILINE)
    return next(each for each in sections if contract in each.partition("\n")[0])


def test_a_new_module_needs_a_place_in_the_pipeline(checkout: Path) -> None:
    (checkout / "runner" / "nowhere.py").write_text('"""Belongs to no layer."""\n')
    kept, said = lint(checkout)
    assert not kept, said


def strangers(source: str) -> set[str]:
    """Return the packages that a module imports and the SDK may not."""
    nodes = list(ast.walk(ast.parse(source)))
    imported = [node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)]
    imported += [each.name for node in nodes if isinstance(node, ast.Import) for each in node.names]
    return {each.partition(".")[0] for each in imported} - SDK_NEEDS - sys.stdlib_module_names


def test_the_sdk_needs_nothing_of_the_server() -> None:
    """It knows the API by HTTP alone, and declares whatever else it imports."""
    seeded = "import os, docker.errors\nfrom runner.words import ids\nfrom httpx import Client"
    assert strangers(seeded) == {"docker", "runner"}
    modules = sorted(SDK.rglob("*.py"))
    assert len(modules) > 10
    found = {each.relative_to(SDK).with_suffix(""): strangers(each.read_text()) for each in modules}
    assert {f"{name}": those for name, those in found.items() if those} == {
        f"integrations/{name}": those for name, those in FRAMEWORKS.items()
    }
    declared = tomllib.loads((SDK.parents[1] / "pyproject.toml").read_text())["project"]
    needs = {re.split("[>=]", each)[0].replace("-", "_") for each in declared["dependencies"]}
    assert needs == SDK_NEEDS - {"agent_runner"}


def reads_of_the_store(source: str) -> list[str]:
    """Return what a module takes from the store besides types: functions, or modules of them."""
    taken = (
        f"{node.module}.{each.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("runner.store")
        for each in node.names
    )
    return [each for each in taken if not each.rpartition(".")[2][0].isupper()]


def test_routes_reach_the_store_through_use_cases() -> None:
    """They take types from it and nothing that reads or writes."""
    seeded = "from runner.store import keys\nfrom runner.store.keys import Grant, list_newest"
    assert reads_of_the_store(seeded) == ["runner.store.keys", "runner.store.keys.list_newest"]
    found = {
        str(path.relative_to(ROOT)): taken
        for path in sorted((ROOT / "runner" / "api").rglob("*.py"))
        if (taken := reads_of_the_store(path.read_text()))
    }
    assert found == {}
