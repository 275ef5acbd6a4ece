"""A program can run and import everything that an image is said to hold."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runner.base.settings import Settings
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.images import Images
from tests.support import sandboxes
from tests.support.sandboxes import Bench

MB = 10**6
COMMON = ["bash", "curl", "esbuild", "git", "jq", "node", "pip", "ps", "python", "python3",
          "sqlite3", "typescript", "unzip", "wget", "xz", "zip"]  # fmt: skip
COMMANDS = {
    "python": COMMON,
    "data": [*COMMON, "file", "npm", "npx", "pytest"],
    "code": [*COMMON, "cc", "diff", "file", "g++", "gcc", "less", "make", "npm", "npx", "patch",
             "pkg-config", "pytest", "rg", "tree"],
}  # fmt: skip
MODULES = {
    "python": ["ensurepip", "httpx", "matplotlib", "numpy", "pandas", "PIL", "pip", "requests"],
    "data": ["bs4", "ensurepip", "httpx", "lxml.etree", "matplotlib", "numpy", "openpyxl",
             "pandas", "PIL", "pip", "pytest", "requests", "scipy.optimize", "scipy.stats",
             "sklearn.linear_model", "sympy", "yaml"],
    "code": ["ensurepip", "httpx", "pip", "pytest", "requests", "yaml"],
}  # fmt: skip
SIZES = {"python": 610 * MB, "data": 960 * MB, "code": 800 * MB}
"""`python` had 530 MB before fonts and tools came into it, and may have 1.15 times as much."""


@pytest.fixture(scope="module", params=["python", "data", "code"])
def name(request: pytest.FixtureRequest) -> str:
    """Return an image that is on this host."""
    image: str = request.param
    sandboxes.build_image(image)
    return image


@pytest.fixture
async def inside(tmp_path: Path, name: str) -> AsyncIterator[Bench]:
    """Return a bench for this image, with memory for compilers and for scikit-learn."""
    async with sandboxes.bench(tmp_path, image=name) as made:
        made.limits = made.within(memory_mb=1024, disk_mb=256, timeout_s=60, pids=128)
        yield made


async def test_its_commands_run(inside: Bench, name: str) -> None:
    """Each prints its version or its help, and none lacks a library."""
    code = "\n".join(
        f"{each} --version >/dev/null 2>&1 || {each} -v >/dev/null 2>&1 || echo {each}"
        for each in COMMANDS[name]
    )
    ran = await inside.bash(code)
    assert (ran.stdout, ran.ending.exit_code) == (b"", 0)


async def test_its_modules_can_be_imported(inside: Bench, name: str) -> None:
    """They are imported in turn, in one interpreter."""
    ran = await inside.python("\n".join(f"import {each}" for each in MODULES[name]))
    assert (ran.ending.exit_code, ran.stderr) == (0, b"")


LISTED = """
import importlib.metadata, importlib.util
for each in importlib.metadata.distributions():
    names = [name for name in (each.read_text("top_level.txt") or "").split() if "/" not in name]
    if names and not any(map(importlib.util.find_spec, names)):
        print(each.metadata["Name"])
"""


async def test_what_pip_lists_can_be_imported(inside: Bench) -> None:
    """A package without its modules is not listed: pip would take it as installed."""
    ran = await inside.python(LISTED)
    assert (ran.ending.exit_code, ran.stdout) == (0, b"")


async def test_apt_could_install_something(inside: Bench) -> None:
    """As it does in templates: it begins with nothing while a dependency is not met."""
    ran = await inside.bash("apt-get -o Debug::NoLocking=1 check 2>&1; echo $?")
    assert ran.stdout.splitlines()[-1] == b"0", ran.stdout.decode()


async def test_it_is_as_small_as_is_said(inside: Bench, name: str) -> None:
    """Docker's own figure."""
    settings = Settings()
    async with Engine(settings.docker_url, timeout_s=30, threads=2) as engine:
        found = await Images(engine, settings.recipes_path).list_images()
    (size,) = [each.size_bytes for each in found if each.name == name and each.current]
    assert size < SIZES[name]


async def test_it_compiles_a_program(inside: Bench, name: str) -> None:
    """In `code`, C and C++ programs are built by make; the other images have no compiler."""
    source = "#include <vector>\\nint main() { return std::vector<int>(7).size(); }"
    ran = await inside.bash(f"printf '{source}' > a.cpp; make -s a && ./a; echo $?")
    assert ran.stdout.splitlines()[-1] == (b"7" if name == "code" else b"127")


SCRIPTS = {
    "Chinese": "天气预报 繁體中文",
    "Japanese": "ひらがな カタカナ 東京",
    "Korean": "한국어 날씨",
    "Hindi": "मौसम हिन्दी",
    "Thai": "สภาพอากาศ",
    "Arabic": "الطقس",
    "emoji": "😀 🎉 📈 🚀 👍 🔥",
}
DRAWS = """
import json, sys, warnings
warnings.simplefilter("error")
import matplotlib.pyplot as plt
FONT
missing = []
for script, text in json.load(sys.stdin).items():
    try:
        plt.figure(figsize=(1, 1)).suptitle(text)
        plt.savefig("x.png")
    except UserWarning as warning:
        missing.append(script)
print(json.dumps(missing))
"""


@pytest.mark.parametrize("name", ["python", "data"], indirect=True)
@pytest.mark.parametrize("fallback", [True, False])
async def test_text_of_every_script_is_drawn(inside: Bench, *, fallback: bool) -> None:
    """Matplotlib warns of each missing glyph, as it does with only its own font."""
    font = "" if fallback else "plt.rcParams['font.family'] = 'DejaVu Sans'"
    ran = await inside.python(DRAWS.replace("FONT", font), stdin=json.dumps(SCRIPTS).encode())
    assert ran.ending.exit_code == 0, ran.stderr
    missing = json.loads(ran.stdout)
    without = ["Chinese", "Japanese", "Korean", "Hindi", "Thai", "emoji"]
    assert missing == ([] if fallback else without)
