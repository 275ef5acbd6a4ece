"""Code as long as each interface takes it runs in every language."""

from collections.abc import Iterator
from typing import get_args

import pytest

from agent_runner import Client, Sandbox
from runner.api.context_requests import MAX_CODE as IN_CONTEXTS
from runner.api.requests import MAX_CODE as IN_EXECUTIONS
from runner.api.sandbox_requests import MAX_CODE as IN_PROCESSES
from runner.words.living import Language
from tests.support.deployment import Deployment

LINES = {
    "python": ("x = 1", "print('whole')"),
    "bash": ("x=1", "echo whole"),
    "javascript": ("var x = 1;", "console.log('whole')"),
    "typescript": ("var x = 1 as number;", "console.log('whole' as string)"),
}
"""By language: a line to repeat, and one that shows that the end was reached."""


@pytest.fixture(scope="module")
def client(shared: Deployment) -> Client:
    return shared.client("long-code")


@pytest.fixture(scope="module")
def sandbox(client: Client) -> Iterator[Sandbox]:
    with client.sandboxes.create(size="medium") as made:
        yield made


def program(language: str, length: int) -> str:
    """Return a program of exactly this length."""
    line, last = LINES[language]
    left = length - len(last) - 1
    code = f"{line}\n" * (left // (len(line) + 1))
    return f"{code}{' ' * (left - len(code))}\n{last}"


@pytest.mark.parametrize("language", LINES)
def test_an_execution_takes_code_of_full_length(client: Client, language: str) -> None:
    code = program(language, IN_EXECUTIONS)
    assert len(code) == IN_EXECUTIONS
    ran = client.run(code=code, language=language, size="medium", limits={"timeout_s": 60})
    assert (ran.state, ran.stdout and ran.stdout.text) == ("succeeded", "whole\n"), ran.stderr


@pytest.mark.parametrize("language", LINES)
def test_a_process_takes_code_of_full_length(sandbox: Sandbox, language: str) -> None:
    code = program(language, IN_PROCESSES)
    ran = sandbox.run(code=code, language=language)
    assert (ran.exit_code, ran.stdout.text) == (0, "whole\n"), ran.stderr.text[:1000]


@pytest.mark.parametrize("language", LINES)
def test_a_process_runs_longer_code_from_a_file_or_a_pipe(sandbox: Sandbox, language: str) -> None:
    """As the refusal of longer code says."""
    command = {"python": "python3", "javascript": "node"}.get(language, language)
    sandbox.files.write("long", program(language, IN_EXECUTIONS))
    for line in (
        f"{command} < long",
        f"cp long long.{language[0]}s && {command} ./long.{language[0]}s",
    ):
        ran = sandbox.run(line)
        assert (ran.exit_code, ran.stdout.text) == (0, "whole\n"), ran.stderr.text[:1000]


@pytest.mark.parametrize("language", get_args(Language))
def test_a_context_takes_code_of_full_length(sandbox: Sandbox, language: str) -> None:
    context = sandbox.contexts.create(language)
    ran = context.run(program(language, IN_CONTEXTS))
    assert ran.stdout == "whole\n", ran
