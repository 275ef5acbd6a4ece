"""The SDK as others install it: a wheel that says what it needs, with its types, and no server."""

import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import agent_runner
import runner
from tests.support.environments import ROOT, sdk_wheel

UNWANTED = ("runner", "agent_runner.integrations")
IMPORTED = "import sys, agent_runner; print(agent_runner.__file__, *sys.modules, sep='\\n')"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the SDK as a wheel."""
    return sdk_wheel(tmp_path_factory.mktemp("wheel") / "built")


def test_the_wheel_has_every_module_and_the_mark_of_types(wheel: Path) -> None:
    source = ROOT / "sdk/python/src"
    modules = {str(path.relative_to(source)) for path in source.rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        told = message_from_bytes(archive.read(metadata))
    assert {*modules, "agent_runner/py.typed"} == {
        name for name in names if name.startswith("agent_runner/")
    }
    needs = {
        each.partition(">")[0]
        for each in told.get_all("Requires-Dist", [])
        if "extra ==" not in each
    }
    assert needs == {"httpx", "httpx-sse", "websockets"}
    assert told["Version"] == agent_runner.__version__ == runner.__version__


def test_importing_it_imports_neither_the_server_nor_an_integration(wheel: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        env={"PYTHONPATH": str(wheel)}, cwd=wheel.parent,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    where, *modules = said.stdout.splitlines()
    assert where.startswith(f"{wheel}/")
    assert [each for each in modules if each.startswith(UNWANTED)] == []
