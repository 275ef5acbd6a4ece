"""Inspect with sandboxes of ours."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.support.environments import ROOT, Environments
from tests.support.frameworks.inside import ADAPTERS, PROGRAMS, Framework, framework
from tests.support.frameworks.scripted import anthropic, scripted
from tests.support.pages import blocks

PAGE = ROOT / "docs/integrations/inspect.md"
ONE_LOOP = (
    *("-o", "asyncio_mode=auto"),
    *("-o", "asyncio_default_test_loop_scope=module"),
)
TESTS = 44
"""How many tests Inspect's suite has in the version that is locked."""
EXCEPTIONS = {
    "test_exec_as_user": "SandboxUserUnsupportedError: a command cannot run as root",
    "test_exec_large_command": "together exceed 196608 bytes",
}
"""The refusals that the page names, and their form."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def inspect(
    environments: Environments, facts: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Framework:
    """Return Inspect."""
    return framework("inspect", environments, facts, tmp_path_factory.mktemp("inspect"))


@pytest.mark.matrix
def test_it_passes_inspects_suite_but_for_what_we_refuse(inspect: Framework) -> None:
    results = inspect.suite("inspect_suite.py", *ONE_LOOP)
    wrong = {name: said for name, said in results.items() if said}
    assert wrong.keys() == EXCEPTIONS.keys(), wrong
    for name, said in EXCEPTIONS.items():
        assert said in wrong[name]
    assert len(results) == TESTS


def test_a_sandbox_does_what_the_page_says(inspect: Framework) -> None:
    results = inspect.suite("inspect_own.py", *ONE_LOOP)
    assert {name: said for name, said in results.items() if said} == {}


def test_the_pages_example_does_what_the_model_says(inspect: Framework) -> None:
    """The answer that Inspect scores comes from a sandbox."""
    [example] = [each for each in blocks("python", PAGE) if not each.mark]
    command = {"command": "python3 -c 'print(6 * 7)'"}
    use = {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": command}
    said = {"type": "text", "text": "It is 42."}
    with scripted([anthropic(use), anthropic(said)]) as script:
        facts = {"ANTHROPIC_BASE_URL": script.url, "ANTHROPIC_API_KEY": "none"}
        evaluation = replace(inspect, facts={**inspect.facts, **facts})
        assert evaluation.run("-c", example.text).endswith("success 1.0\n")
    [*_, last] = script.asked[-1]["messages"]
    assert "42" in str(last["content"])


@pytest.mark.matrix
def test_the_adapter_and_what_runs_there_have_right_types(inspect: Framework) -> None:
    programs = [*PROGRAMS.glob("inspect*.py")]
    assert programs
    reads = ("inspect_ai", "pydantic", "anyio", "pytest_asyncio")
    assert inspect.mistakes(ADAPTERS / "inspect.py", *programs, reads=reads) == ""
