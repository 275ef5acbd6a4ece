"""An executor of smolagents: the code of a `CodeAgent`, in a sandbox."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import PIL.Image
from smolagents.local_python_executor import CodeOutput
from smolagents.monitoring import AgentLogger
from smolagents.remote_executors import RemotePythonExecutor
from smolagents.tools import Tool, get_tools_definition_code
from smolagents.utils import AgentExecutionError

from agent_runner import Context, Result, Run, Sandbox
from agent_runner.types import omission

INSTALL = """
def _install(packages):
    import subprocess, sys
    from importlib.metadata import PackageNotFoundError, version

    def is_missing(package):
        try:
            version(package)
        except PackageNotFoundError:
            return True
        return False

    if missing := [each for each in packages if is_missing(each)]:
        pip = [sys.executable, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *missing], check=True)

_install({packages!r})
del _install
"""
IMAGES = ("image/png", "image/jpeg")
ANSWER = "import sys; print(sys.last_value.value, end='')"
"""Prints the whole answer: a run tells no more than the beginning of an error's text."""


class RunnerExecutor(RemotePythonExecutor):
    """Runs an agent's code in a Python context of a sandbox, where its variables stay.

    The sandbox stays yours: agents may share it, each with variables of its own. Answers come back
    as JSON, never as pickles, which could run code of the sandbox here. `imports` are packages to
    install first; the sandbox needs egress to an index for that.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        imports: Sequence[str] = (),
        timeout_s: float | None = None,
        logger: AgentLogger | None = None,
    ) -> None:
        super().__init__(list(imports), logger or AgentLogger(), allow_pickle=False)
        self._timeout_s = timeout_s
        self._sandbox = sandbox
        self._context: Context | None = None
        self._definitions = ""
        self.installed_packages = self.install_packages(list(imports))

    def send_tools(self, tools: dict[str, Tool]) -> None:
        """Define an agent's tools."""
        super().send_tools(tools)
        self._definitions = get_tools_definition_code(tools)

    def install_packages(self, additional_imports: list[str]) -> list[str]:
        """Install packages in the sandbox. Raises AgentExecutionError if that fails."""
        if additional_imports:
            self.run_code_raise_errors(INSTALL.format(packages=additional_imports))
        return additional_imports

    def run_code_raise_errors(self, code: str) -> CodeOutput:
        """Run code; return the value of its last line, or the agent's final answer.

        Raises AgentExecutionError if the code fails.
        """
        ran = self._ready().run(code, timeout_s=self._timeout_s)
        logs = _logs(ran)
        if ran.error is not None and ran.error.name == self.FINAL_ANSWER_EXCEPTION:
            answer = self._deserialize_final_answer(self._raised(), allow_pickle=False)
            return CodeOutput(output=answer, logs=logs, is_final_answer=True)
        self._check(ran)
        output = next((_value(each) for each in ran.results if each.is_main), None)
        return CodeOutput(output=output, logs=logs, is_final_answer=False)

    def cleanup(self) -> None:
        """End the context. The sandbox goes on."""
        if self._context is not None:
            self._context.remove()
            self._context = None

    def _raised(self) -> str:
        """Return the answer in the exception that was raised last."""
        told = self._ready().run(ANSWER)
        self._check(told)
        if told.omitted_bytes:
            raise AgentExecutionError("The final answer is too long: make it shorter.", self.logger)
        return told.stdout

    def _check(self, ran: Run) -> None:
        if ran.error is not None:
            raise AgentExecutionError(f"{_logs(ran)}{ran.error.traceback}", self.logger)
        if not ran.ok:
            raise AgentExecutionError(f"{_logs(ran)}{_end(ran)}", self.logger)

    def _ready(self) -> Context:
        """Return the context; another interpreter if the code has ended the last one."""
        if self._context is None:
            self._context = self._sandbox.contexts.create("python")
        elif self._context.ended:
            self._context.restart()
            self._context.run(self._definitions)
        return self._context


def _logs(ran: Run) -> str:
    missing = f"\n{omission(ran.omitted_bytes)}\n" if ran.omitted_bytes else ""
    return f"{ran.stdout}{ran.stderr}{missing}"


def _end(ran: Run) -> str:
    why = "The code took too long. " if ran.timed_out else ""
    lost = "Its interpreter has ended: variables are lost." if ran.context_ended else ""
    return f"{why}{lost}" or f"The code ended with {ran.exit_code}."


def _value(result: Result) -> Any:
    """Return a value as an image if it is one, and otherwise as text."""
    kinds: Mapping[str, Any] = result.data
    image = next((kind for kind in IMAGES if kind in kinds), None)
    return PIL.Image.open(BytesIO(result.raw(image))) if image else result.text
