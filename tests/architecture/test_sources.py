"""Rules about the source that no linter checks."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.base.settings import ClientSettings, Settings
from runner.queue import ring
from runner.words.states import ALLOWED, ENDED, State, may_change

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    path
    for folder in ("runner", "sandbox_images", "sdk")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
LONGEST = 350

READS_ENVIRONMENT = {
    "runner/base/settings.py": "reads it for everybody",
    "runner/embedded/stack.py": "hands it on to the API and worker it starts",
    "runner/templates/inside.py": "runs in a sandbox, and gives a step the sandbox's environment",
    "sdk/python/src/agent_runner/address.py": "where a program that uses the SDK finds the API",
    "sandbox_images/contexts/context_interpreter.py": "an interpreter's environment is its own",
    "sandbox_images/contexts/python_shell.py": "changes what the code in a sandbox reads",
    "sandbox_images/supervisor/interpreter.py": "makes the program's environment its own",
    "sandbox_images/supervisor/prepare.py": "gives the program the environment of its container",
    "sandbox_images/supervisor/spawning.py": "as above, in a sandbox that lives",
}


def name(path: Path) -> str:
    """Return a path relative to the project."""
    return str(path.relative_to(ROOT))


def test_a_module_is_short_enough_to_be_read_at_once() -> None:
    assert [name(each) for each in MODULES if len(each.read_text().splitlines()) > LONGEST] == []


def test_a_module_says_what_it_is_for() -> None:
    silent = [each for each in MODULES if not ast.get_docstring(ast.parse(each.read_text()))]
    assert silent == []


def test_only_the_settings_read_the_environment() -> None:
    reading = {name(each) for each in MODULES if any(reads_environment(each.read_text()))}
    assert reading == set(READS_ENVIRONMENT)


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.environ['A']",
        "import os\nos.getenv('A')",
        "from os import environ",
        "from os import getenv as g",
        "import os as system\nsystem.environb",
        "from pydantic_settings import BaseSettings",
    ],
)
def test_reading_the_environment_is_seen(code: str) -> None:
    assert any(reads_environment(code))


def reads_environment(code: str) -> Iterator[bool]:
    """Yield True for each way in which a module reads the environment."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute):
            yield node.attr in {"environ", "environb", "getenv", "getenvb"}
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield any(each.name.startswith(("environ", "getenv")) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module == "pydantic_settings"


def test_the_environment_names_no_proxy_for_our_own_requests() -> None:
    """Each goes to exactly the address that a setting names, as httpx does only when told to."""
    following = {name(each) for each in MODULES if any(asks_for_proxies(each.read_text()))}
    # Whoever uses the SDK may be behind a proxy.
    assert {each for each in following if not each.startswith("sdk/")} == set()


@pytest.mark.parametrize("arguments", ["", "timeout=5", "trust_env=True"])
def test_a_client_that_would_use_such_a_proxy_is_seen(arguments: str) -> None:
    assert list(asks_for_proxies(f"import httpx\nhttpx.AsyncClient({arguments})")) == [True]


def asks_for_proxies(code: str) -> Iterator[bool]:
    """Yield True for each HTTP client that uses the proxies of the environment."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="httpx"), attr="Client" | "AsyncClient"),
                keywords=given,
            ):
                told = {each.arg: ast.unparse(each.value) for each in given}
                yield told.get("trust_env") != "False"


def test_the_function_that_rings_name_exists() -> None:
    """RQ finds functions by their names as text, which no type checker follows."""
    module, _, function = ring.RING.rpartition(".")
    assert inspect.isroutine(getattr(importlib.import_module(module), function))


def statements() -> Iterator[tuple[str, set[str], str]]:
    """Yield (target, sources, text) for each literal change of state in our SQL."""
    for path in sorted((ROOT / "runner" / "store").rglob("*.sql")):
        for text in re.split(r";|-- name:", path.read_text()):
            update = text.partition("RETURNING")[0]
            change = re.search(r"UPDATE executions.*?SET state = '(\w+)'(.*)", update, re.DOTALL)
            if change:
                yield change[1], sources(change[2]), text


def sources(condition: str) -> set[str]:
    """Return the states that a statement starts from."""
    one = re.findall(r"state = '(\w+)'", condition)
    several = re.findall(r"state IN \(([^)]*)\)", condition)
    return {*one, *(word for group in several for word in re.findall(r"'(\w+)'", group))}


def test_sql_changes_states_only_as_the_table_allows() -> None:
    found = list(statements())
    assert {target for target, _, _ in found} == {"starting", "running", "queued", "cancelled"}
    for target, origins, text in found:
        assert origins, text
        assert all(may_change(State(origin), State(target)) for origin in origins), text


def test_the_database_knows_the_same_states() -> None:
    schema = (ROOT / "runner/store/migrations/versions/0001_initial.sql").read_text()
    checks = re.findall(r"\(state IN \(([^)]*)\)", schema)
    assert {State(word) for word in re.findall(r"'(\w+)'", checks[0])} == set(State)
    unended = re.search(r"ended_at IS NULL\) = \(state IN \(([^)]*)\)", schema)
    assert unended is not None
    assert set(re.findall(r"'(\w+)'", unended[1])) == set(State) - ENDED


def test_every_state_can_be_reached_and_left_unless_it_is_an_end() -> None:
    assert set(ALLOWED) == set(State)
    assert set().union(*ALLOWED.values()) == set(State)
    assert {state for state, targets in ALLOWED.items() if not targets} == ENDED


def test_the_manual_names_every_setting() -> None:
    text = (ROOT / "docs/operations/configuration.md").read_text()
    documented = re.findall(r"^\| `RUNNER_(\w+)` \|", text, re.MULTILINE)
    fields = [*Settings.model_fields, *ClientSettings.model_fields]
    assert sorted(documented) == sorted(field.upper() for field in fields)
