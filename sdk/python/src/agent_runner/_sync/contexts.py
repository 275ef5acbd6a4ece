# Written by scripts/make-sync from _async/contexts.py: change that.
"""Code contexts: interpreters in a sandbox that keep their variables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from agent_runner._sync.calls import call, delete, events, order
from agent_runner.answers import object_of
from agent_runner.errors import Unavailable
from agent_runner.runs import (
    CONTEXT,
    CONTEXTS,
    KIB,
    MOST_OF_OUTPUT,
    RUN,
    CodeError,
    ContextInfo,
    Gathering,
    Result,
    Run,
    RunEvent,
)
from agent_runner.transport import READ_TIMEOUT_S, params

CREATE_TIMEOUT_S = 120.0


class Context:
    """One context. As a context manager, it is removed at the end."""

    def __init__(self, http: httpx.Client, path: str, info: ContextInfo) -> None:
        self._http = http
        self._path = f"{path}/{info.context}"
        self.info = info
        """The API's latest answer about it."""
        self.ended = False
        """Whether code that ran here has ended its interpreter."""

    def __repr__(self) -> str:
        return f"Context({self.number}, {self.info.language!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    @property
    def number(self) -> int:
        """Its number in its sandbox."""
        return self.info.context

    def run(
        self,
        code: str,
        *,
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
        output_kb: int = MOST_OF_OUTPUT // KIB,
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        on_result: Callable[[Result], object] | None = None,
    ) -> Run:
        """Run code, and return what happened once it has ended.

        The callbacks are called as things happen, with all of it. The first `output_kb` KiB of
        stdout and of stderr are kept, and results up to 64 MiB; the answer's `omitted_bytes` count
        the rest. Code that fails does not raise: its `error` is in the answer. Raises ApiError, and
        Unavailable if the stream breaks off.
        """
        gathering = Gathering(output_kb * KIB)
        for event in self.events(code, timeout_s=timeout_s, env=env):
            data = event.data
            match event.kind:
                case "stdout":
                    gathering.write("stdout", data["text"])
                    _call(on_stdout, data["text"])
                case "stderr":
                    gathering.write("stderr", data["text"])
                    _call(on_stderr, data["text"])
                case "result":
                    result = Result(object_of(data["data"]), data["is_main"], data["truncated"])
                    gathering.show(result)
                    _call(on_result, result)
                case "error":
                    error = CodeError(data["name"], data["value"], data["traceback"])
                    gathering.run.error = error
                case "gap":
                    gathering.run.omitted_bytes += data["omitted_bytes"]
                case "ended":
                    ran = gathering.end(data)
                    self.ended = ran.context_ended
                    return ran
        raise Unavailable({"detail": "the stream of a run broke off before its end"})

    def events(
        self, code: str, *, timeout_s: float | None = None, env: Mapping[str, str] | None = None
    ) -> Iterator[RunEvent]:
        """Run code, and yield what happens. If the iteration ends early, it is interrupted."""
        body = params(code=code, timeout_s=timeout_s, env=None if env is None else dict(env))
        return events(self._http, RUN, f"{self._path}/run", method="POST", json=body)

    def interrupt(self) -> None:
        """Interrupt what runs; variables stay."""
        order(self._http, "POST", f"{self._path}/interrupt")

    def restart(self) -> ContextInfo:
        """Give it a new interpreter, without variables."""
        timeout = httpx.Timeout(READ_TIMEOUT_S, read=CREATE_TIMEOUT_S)
        self.info = call(self._http, CONTEXT, "POST", f"{self._path}/restart", timeout=timeout)
        self.ended = False
        return self.info

    def refresh(self) -> ContextInfo:
        """Ask the API about it, keep the answer as `info`, and return it."""
        self.info = call(self._http, CONTEXT, "GET", self._path)
        return self.info

    def remove(self) -> None:
        """End it, with everything that its code has started."""
        delete(self._http, self._path)


class Contexts:
    """The contexts of one sandbox."""

    def __init__(self, http: httpx.Client, path: str) -> None:
        self._http = http
        self._path = path

    def create(
        self,
        language: str = "python",
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Context:
        """Begin a context of `python`, `javascript` or `bash`. Raises ApiError."""
        body = params(language=language, cwd=cwd, env=None if env is None else dict(env))
        timeout = httpx.Timeout(READ_TIMEOUT_S, read=CREATE_TIMEOUT_S)
        info = call(self._http, CONTEXT, "POST", self._path, json=body, timeout=timeout)
        return Context(self._http, self._path, info)

    def get(self, number: int) -> Context:
        """Return a context."""
        info = call(self._http, CONTEXT, "GET", f"{self._path}/{number}")
        return Context(self._http, self._path, info)

    def list(self) -> Sequence[ContextInfo]:
        """Return all, in order of their beginning."""
        return call(self._http, CONTEXTS, "GET", self._path)


def _call(callback: Callable[[Any], object] | None, value: object) -> None:
    if callback is not None:
        callback(value)
