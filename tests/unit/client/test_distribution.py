"""The SDK as others install it: a wheel that says what it needs, with its types, and no server."""

import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import agent_runner
import runner

ROOT = Path(__file__).resolve().parents[3]
IMPORTED = "import sys, agent_runner; print(agent_runner.__file__, *sys.modules, sep='\\n')"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the SDK as a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    # What an earlier build has left beside the source would be in the wheel.
    left = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT / "sdk/python", folder / "source", ignore=left)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, source],
        check=True, timeout=120, cwd=folder,
    )  # fmt: skip
    (built,) = folder.glob("agent_runner_sdk-*.whl")
    return built


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
    needs = {each.partition(">")[0] for each in told.get_all("Requires-Dist", [])}
    assert needs == {"httpx", "httpx-sse", "websockets"}
    assert told["Version"] == agent_runner.__version__ == runner.__version__


def test_importing_it_imports_nothing_of_the_server(wheel: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        env={"PYTHONPATH": str(wheel)}, cwd=wheel.parent,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    where, *modules = said.stdout.splitlines()
    assert where.startswith(f"{wheel}/")
    assert [each for each in modules if each.partition(".")[0] == "runner"] == []
