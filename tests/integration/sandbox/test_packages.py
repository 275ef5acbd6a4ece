"""Packages can be installed from an index that a program reaches, and are there at once.

The index is served inside the sandbox. That a program reaches one outside by the egress proxy, and
the proxy's certificate, is shown where the proxy is tested.
"""

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runner.sandbox.drive import ProgramRun, use
from runner.words.execution import InputFile, Program
from tests.support import sandboxes
from tests.support.sandboxes import Bench

URL = "http://127.0.0.1:8000"
ENVIRONMENT = {"PIP_INDEX_URL": f"{URL}/simple", "NPM_CONFIG_REGISTRY": URL}
MANY = 100
"""More files than one execution may keep."""


def wheel() -> bytes:
    """Return a wheel of a module `parcel` with many files, and a command of that name."""
    info = "parcel-1.0.dist-info"
    files = {
        "parcel/__init__.py": "def main():\n    print('a parcel from Python')\n",
        **{f"parcel/data/{n}.txt": f"{n}\n" for n in range(MANY)},
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nparcel = parcel:main\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, content in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, content)
    return made.getvalue()


def tarball() -> bytes:
    """Return an npm package `parcel` with a command of that name."""
    about = {"name": "parcel", "version": "1.0.0", "main": "index.js", "bin": "run.js"}
    files = {
        "package/package.json": json.dumps(about),
        "package/index.js": "module.exports = 'a parcel from npm';\n",
        "package/run.js": "#!/usr/bin/env node\nconsole.log(require('./index.js'));\n",
    }
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content.encode()))
    return made.getvalue()


WHEEL, TARBALL = wheel(), tarball()


def index() -> list[InputFile]:
    """Return the files of an index for Python packages that is also a registry for npm."""
    name = "parcel-1.0-py3-none-any.whl"
    sum_ = base64.b64encode(hashlib.sha512(TARBALL).digest()).decode()
    dist = {"tarball": f"{URL}/parcel-1.0.0.tgz", "integrity": f"sha512-{sum_}"}
    version = {"name": "parcel", "version": "1.0.0", "bin": {"parcel": "run.js"}, "dist": dist}
    about = {"name": "parcel", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    files = {
        "simple/parcel/index.html": f'<a href="/{name}">{name}</a>'.encode(),
        name: WHEEL,
        "parcel": json.dumps(about).encode(),
        "parcel-1.0.0.tgz": TARBALL,
    }
    return [InputFile(f"index/{path}", content) for path, content in files.items()]


SERVES = "python3 -m http.server --bind 127.0.0.1 --directory index 8000 2>/dev/null >&2 &\n"
SERVES += "until curl -so /dev/null http://127.0.0.1:8000; do sleep 0.1; done\n"


async def script(bench: Bench, code: str) -> ProgramRun:
    """Run a shell script beside the index; it stops at its first failure."""
    return await bench.run(("bash", "-ec", SERVES + code), env=ENVIRONMENT, files=index())


@pytest.fixture
async def roomy(bench: Bench) -> Bench:
    """Return a bench with memory and time for package managers."""
    bench.limits = bench.within(memory_mb=512, disk_mb=256, pids=64, timeout_s=150)
    return bench


@pytest.fixture
async def code_bench(tmp_path: Path, code_image: None) -> AsyncIterator[Bench]:
    """Return a bench for the image `code`."""
    async with sandboxes.bench(tmp_path, image="code") as made:
        made.limits = made.within(memory_mb=512, disk_mb=256, pids=64, timeout_s=150)
        yield made


@pytest.mark.parametrize("options", ["", "--user"])
async def test_pip_installs_a_module_and_its_command(roomy: Bench, options: str) -> None:
    """Both are found at once; none of the package's files takes the place of the result."""
    ran = await script(
        roomy,
        f"pip install -q {options} parcel; parcel; python3 -c 'import parcel; parcel.main()'; "
        "echo kept > result.csv",
    )
    assert ran.stdout == b"a parcel from Python\n" * 2, ran
    assert ran.files == {"result.csv": b"kept\n"}
    assert ran.collected.refused == (".local/: made_by_tools",)


INSTALLS = """
import importlib.metadata, subprocess, sys
try:
    import parcel
except ImportError:
    print("not there")
subprocess.run(["bash", "-ec", sys.argv[1]], check=True)
import parcel
parcel.main()
print(importlib.metadata.version("parcel"))
"""


@pytest.mark.parametrize("interpret", [True, False])
async def test_a_running_program_imports_what_it_installs(roomy: Bench, *, interpret: bool) -> None:
    """This holds although it looked before the folder existed, in a forked or new interpreter."""
    argv = ("python3", "main.py", SERVES + "pip install -q parcel")
    files = [*index(), InputFile("main.py", INSTALLS.encode())]
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}
    async with roomy.sandbox() as sandbox:
        program = Program(argv, environment, interpret=interpret)
        ran = await use(sandbox, program, roomy.limits.bounds, files=files)
    assert ran.stdout == b"not there\na parcel from Python\n1.0\n", ran


async def test_a_virtual_environment_works(roomy: Bench) -> None:
    """It has a pip of its own, sees none of the image's packages, and is no artifact."""
    ran = await script(
        roomy,
        "python3 -m venv v; v/bin/pip install -q parcel; v/bin/parcel; "
        "! v/bin/python -c 'import requests' 2>/dev/null; . v/bin/activate; "
        "python -c 'import parcel; parcel.main()'; echo kept > result.csv",
    )
    assert ran.stdout == b"a parcel from Python\n" * 2, ran
    assert ran.files == {"result.csv": b"kept\n"}
    assert ran.collected.refused == ("v/: made_by_tools",)


async def test_npm_installs_a_package_and_its_command(code_bench: Bench) -> None:
    """It installs beside the program, and globally."""
    ran = await script(
        code_bench,
        "npm install --silent parcel; node -p 'require(\"parcel\")'; npx --no-install parcel; "
        "npm install --silent -g parcel; command -v parcel; parcel; echo kept > result.csv",
    )
    said = b"a parcel from npm\n"
    assert ran.stdout == said * 2 + b"/workspace/.local/bin/parcel\n" + said, ran
    assert sorted(ran.files) == ["package-lock.json", "package.json", "result.csv"]
    assert sorted(ran.collected.refused) == [
        ".local/: made_by_tools",
        "node_modules/: made_by_tools",
    ]
