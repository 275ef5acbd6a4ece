"""An agent of smolagents whose code runs in sandboxes of ours."""

import os
import runpy
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import PIL.Image
import pytest
from smolagents import CodeAgent, Model, Tool
from smolagents.memory import ActionStep
from smolagents.models import ChatMessage, MessageRole
from smolagents.serialization import SerializationError
from smolagents.utils import AgentExecutionError

from agent_runner import Sandbox
from agent_runner.integrations.smolagents import RunnerExecutor

PICKLE = "pickle:gARLAS4="
FORGED = f"""
class FinalAnswerException(BaseException):
    value = {PICKLE!r}
raise FinalAnswerException
"""


class Scripted(Model):
    """A model that says what it was given, one piece of code for each of the agent's steps."""

    def __init__(self, *steps: str) -> None:
        super().__init__()
        self._left = list(steps)

    def generate(self, *_: Any, **__: Any) -> ChatMessage:
        """Return the next step."""
        said = f"Thought: next.\n<code>\n{self._left.pop(0)}\n</code>"
        return ChatMessage(role=MessageRole.ASSISTANT, content=said)


class Doubling(Tool):  # type: ignore[no-untyped-call] # the framework's
    """A tool that an agent's code calls in the sandbox."""

    name = "doubled"
    description = "Doubles a number."
    inputs = {"number": {"type": "integer", "description": "a number"}}  # noqa: RUF012 - its form
    output_type = "integer"

    def forward(self, number: int) -> int:
        """Return twice the number."""
        return number * 2


doubling: Tool = Doubling()  # type: ignore[no-untyped-call] # the framework's


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Return a sandbox that the tests share."""
    with Sandbox.create(size="small", timeout_s=600) as made:
        yield made


@pytest.fixture
def executor(sandbox: Sandbox) -> Iterator[RunnerExecutor]:
    """Return an executor with variables of its own."""
    made = RunnerExecutor(sandbox)
    yield made
    made.cleanup()


def test_variables_stay_and_the_last_line_has_a_value(executor: RunnerExecutor) -> None:
    executor("total = sum(range(5))\nprint('summed')")
    ran = executor("total * 2")
    assert (ran.output, ran.logs, ran.is_final_answer) == ("20", "", False)


def test_an_error_is_told_with_its_line(executor: RunnerExecutor) -> None:
    with pytest.raises(AgentExecutionError, match="ZeroDivisionError"):
        executor("print('before')\n1 / 0")


def test_variables_of_the_agent_reach_the_code(executor: RunnerExecutor) -> None:
    executor.send_variables({"given": {"a": [1, 2]}})
    assert executor("given['a'][1]").output == "2"


def test_an_image_is_an_image(executor: RunnerExecutor) -> None:
    file = BytesIO()
    PIL.Image.new("RGB", (3, 2)).save(file, "png")
    shown = f"class Dot:\n    def _repr_png_(self):\n        return {file.getvalue()!r}\nDot()"
    output = executor(shown).output
    assert isinstance(output, PIL.Image.Image)
    assert output.size == (3, 2)


def test_a_package_that_cannot_be_installed_is_told(sandbox: Sandbox) -> None:
    with pytest.raises(AgentExecutionError, match="CalledProcessError"):
        RunnerExecutor(sandbox, imports=["no/such/package"])


def test_an_agent_calls_its_tools_and_answers(executor: RunnerExecutor) -> None:
    model = Scripted("value = doubled(21)\nprint(value)", "final_answer({'value': value})")
    agent = CodeAgent(tools=[doubling], model=model, executor=executor, max_steps=3)
    assert agent.run("Double 21.") == {"value": 42}


def test_a_large_answer_arrives_whole(executor: RunnerExecutor) -> None:
    model = Scripted("final_answer('x' * 300_000)")
    agent = CodeAgent(tools=[], model=model, executor=executor, max_steps=1)
    assert agent.run("Say much.") == "x" * 300_000


def test_agents_that_share_a_sandbox_have_their_own_variables(
    sandbox: Sandbox, executor: RunnerExecutor
) -> None:
    executor("mine = 1")
    other = RunnerExecutor(sandbox)
    with pytest.raises(AgentExecutionError, match="NameError"):
        other("mine")
    other.cleanup()


def test_an_agent_goes_on_after_its_interpreter_has_ended(executor: RunnerExecutor) -> None:
    """It is told that its variables are lost; its tools are there again."""
    model = Scripted("import os\nos.kill(os.getpid(), 9)", "final_answer(doubled(4))")
    agent = CodeAgent(tools=[doubling], model=model, executor=executor, max_steps=3)
    assert agent.run("Double 4.") == 8
    told = [each.error for each in agent.memory.steps if isinstance(each, ActionStep)]
    assert "variables are lost" in f"{told[0]}"


def test_code_that_takes_too_long_is_interrupted(sandbox: Sandbox) -> None:
    executor = RunnerExecutor(sandbox, timeout_s=1)
    with pytest.raises(AgentExecutionError, match=r"too long|KeyboardInterrupt"):
        executor("import time\ntime.sleep(600)")
    executor.cleanup()


def test_a_pickle_from_the_sandbox_is_refused(executor: RunnerExecutor) -> None:
    """It could run code on this host. An executor that takes pickles loads this one."""
    assert executor._deserialize_final_answer(PICKLE, allow_pickle=True) == 1
    with pytest.raises(SerializationError, match=r"[Pp]ickle"):
        executor(FORGED)


def test_the_example_of_our_page_works(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(os.environ["RUNNER_TEST_EXAMPLE"], {"MODEL": Scripted("final_answer(6 * 7)")})
    assert capsys.readouterr().out.endswith("\n42\n")
