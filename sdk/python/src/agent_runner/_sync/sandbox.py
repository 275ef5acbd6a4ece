# Written by scripts/make-sync from _async/sandbox.py: change that.
"""A sandbox that lives."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from agent_runner._sync.calls import call, connection, delete, events
from agent_runner._sync.contexts import Context, Contexts
from agent_runner._sync.local import sleep
from agent_runner._sync.ports import SandboxPorts
from agent_runner._sync.processes import Process
from agent_runner._sync.sandbox_files import SandboxFiles
from agent_runner._sync.terminals import Terminal
from agent_runner.address import address
from agent_runner.errors import Gone, NotFound, Unavailable
from agent_runner.living import (
    MOST_KEPT,
    ProcessInfo,
    Ran,
    SandboxEvent,
    SandboxInfo,
    SnapshotInfo,
    Started,
)
from agent_runner.living_answers import (
    COPIES,
    METRICS,
    PROCESS,
    PROCESSES,
    SANDBOX,
    SANDBOX_EVENTS,
    SERIES,
    SNAPSHOT,
    STARTED,
)
from agent_runner.runs import KIB, MOST_OF_OUTPUT, Result, Run
from agent_runner.transport import (
    CONNECT_TIMEOUT_S,
    MAX_RESUMES,
    PATIENT,
    READ_TIMEOUT_S,
    REPEATABLE,
    RESUME_AFTER_S,
    RETRY_FOR_S,
    keyed,
    params,
)
from agent_runner.types import content_of

ROUTE = "/v1/sandboxes"
MAX_WAIT_S = 300


class Sandbox:
    """A sandbox that lives. As a context manager, it is killed at the end of the context.

    `info` is the API's latest answer about it.
    """

    def __init__(self, http: httpx.Client, info: SandboxInfo, *, owns: bool = False) -> None:
        self._http = http
        self._owns = owns
        self._path = f"{ROUTE}/{quote(info.id, safe='')}"
        self.info = info
        self._contexts: dict[str, Context] = {}

    def __repr__(self) -> str:
        return f"Sandbox({self.id!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.kill()
        finally:
            self.close()

    @classmethod
    def create(
        cls,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retry_for_s: float = RETRY_FOR_S,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Self:
        """Make a sandbox with a connection of its own, which ends with its context or `close`.

        What is not given of the address and the key comes from `RUNNER_URL` and `RUNNER_API_KEY`.
        Everything else is as with `client.sandboxes.create`. Raises ApiError, and ValueError if
        the address or the key is missing.
        """
        http = connection(*address(url, api_key), retry_for_s=retry_for_s)
        try:
            return cls(http, created(http, idempotency_key, options), owns=True)
        except BaseException:
            http.close()
            raise

    @property
    def id(self) -> str:
        """Its id."""
        return self.info.id

    @property
    def files(self) -> SandboxFiles:
        """The files in it."""
        return SandboxFiles(self._http, f"{self._path}/files")

    @property
    def ports(self) -> SandboxPorts:
        """The servers in it."""
        return SandboxPorts(self._http, self._path)

    @property
    def contexts(self) -> Contexts:
        """Code interpreters in it that keep their variables."""
        return Contexts(self._http, f"{self._path}/contexts")

    def run_code(
        self,
        code: str,
        *,
        language: str = "python",
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
        output_kb: int = MOST_OF_OUTPUT // KIB,
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        on_result: Callable[[Result], object] | None = None,
    ) -> Run:
        """Run code in a context that this object keeps for its language, begun on first use.

        If the code ended the last one's interpreter, this begins another one.
        """
        context = self._contexts.get(language)
        if context is None or context.ended:
            context = self._contexts[language] = self.contexts.create(language)
        return context.run(
            code,
            timeout_s=timeout_s,
            env=env,
            output_kb=output_kb,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
            on_result=on_result,
        )

    def run(
        self,
        command: str | Sequence[str] | None = None,
        *,
        stdin: bytes | str | None = None,
        output_kb: int = MOST_KEPT // KIB,
        **options: Any,
    ) -> Ran:
        """Run a command, and return when it has ended, however long that takes.

        A `command` that is a list is a program and its arguments; a string is a line for a shell.
        `options` are the API's other fields: `code` with `language`, `cwd`, `env`, `timeout_s`, ….
        The first `output_kb` KiB of stdout and of stderr are kept. Raises ApiError.
        """
        options = {**options, "wait_s": MAX_WAIT_S, "output_kb": output_kb}
        started = self._start(command, stdin, options)
        info, stdout, stderr = started.info, started.stdout, started.stderr
        if not info.ended or stdout is None or stderr is None:
            process = Process(self._http, self._processes, info, started.next_offset)
            return process.finish(stdout, stderr, output_kb * KIB)
        return Ran(info.process, info.exit_code, info.signal, info.timed_out, stdout, stderr)

    def start(
        self,
        command: str | Sequence[str] | None = None,
        *,
        stdin: bytes | str | None = None,
        **options: Any,
    ) -> Process:
        """Start a process, and return at once. Takes the options of `run`."""
        started = self._start(command, stdin, options)
        return Process(self._http, self._processes, started.info)

    def terminal(
        self,
        command: str | Sequence[str] = ("bash",),
        *,
        rows: int = 24,
        columns: int = 80,
        **options: Any,
    ) -> Terminal:
        """Start a process on a terminal, by default a shell, and open it."""
        size = {"rows": rows, "columns": columns}
        process = self.start(command, terminal=size, **options)
        return process.terminal()

    def processes(self) -> Sequence[ProcessInfo]:
        """Return its running processes and those that ended last."""
        return call(self._http, PROCESSES, "GET", self._processes)

    def process(self, number: int) -> Process:
        """Return one of its processes."""
        info = call(self._http, PROCESS, "GET", f"{self._processes}/{number}")
        return Process(self._http, self._processes, info)

    def refresh(self) -> SandboxInfo:
        """Ask the API about it, keep the answer as `info`, and return it."""
        return self._told("GET", self._path)

    def metrics(self) -> dict[str, float | None]:
        """Return what it uses now: `cpu_s`, `memory_bytes`, `disk_bytes`, `processes`, …."""
        return call(self._http, METRICS, "GET", f"{self._path}/metrics")

    def metrics_series(self) -> Sequence[dict[str, Any]]:
        """Return what it has used for the last hour: metrics with `at`, oldest first."""
        return call(self._http, SERIES, "GET", f"{self._path}/metrics/series")

    def events(self, *, after: str | None = None, follow: bool = True) -> Iterator[SandboxEvent]:
        """Yield what happens to it and in it, from its creation on, until it has ended.

        It resumes a broken connection without missing or repeating anything. `after` is the id of
        the last event that you have. Without `follow`, it stops after what is on record now. Raises
        Unavailable if the API stays away.
        """
        failures = 0
        while True:
            before = after
            try:
                for event in self._events(after, follow=follow):
                    failures, after = 0, event.id
                    yield event
                    if event.is_end:
                        return
                # A proxy may close a stream in good order before its end.
                if not follow or (after == before and (self.refresh()).ended):
                    return
            except Unavailable:
                failures += 1
                if failures > MAX_RESUMES:
                    raise
            sleep(RESUME_AFTER_S)

    def _events(self, after: str | None, *, follow: bool) -> Iterator[SandboxEvent]:
        return events(
            self._http,
            SANDBOX_EVENTS,
            f"{self._path}/events",
            params={"follow": str(follow).lower()},
            headers={"Last-Event-ID": after} if after else {},
        )

    def update(self, **changes: Any) -> SandboxInfo:
        """Set `timeout_s` from now on, `metadata`, `on_shortage`, `egress` or `egress_policy`."""
        return self._told("PATCH", self._path, json=changes)

    def pause(self) -> SandboxInfo:
        """Freeze its processes: they keep their memory."""
        return self._told("POST", f"{self._path}/pause", extensions=REPEATABLE)

    def resume(self) -> SandboxInfo:
        """Let its processes go on."""
        return self._told("POST", f"{self._path}/resume", extensions=REPEATABLE)

    def snapshot(
        self,
        name: str | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        expires_s: float | None = None,
        idempotency_key: str | None = None,
    ) -> SnapshotInfo:
        """Keep the files of its workspace, for `expires_s` seconds or until they are deleted."""
        body = params(name=name, metadata=metadata, expires_s=expires_s)
        path, keys = f"{self._path}/snapshots", keyed(idempotency_key)
        sent = {"json": body, "headers": keys, "timeout": PATIENT}
        return call(self._http, SNAPSHOT, "POST", path, **sent)

    def fork(
        self, count: int = 1, *, idempotency_key: str | None = None, **options: Any
    ) -> "list[Sandbox]":
        """Make sandboxes like this one, with its files; none of its processes runs in them.

        `options` are `timeout_s`, `on_timeout` and `metadata`. Kill each of them when you are done.
        """
        body, keys = {"count": count, **options}, keyed(idempotency_key)
        sent = {"json": body, "headers": keys, "timeout": PATIENT}
        made = call(self._http, COPIES, "POST", f"{self._path}/fork", **sent)
        return [Sandbox(self._http, each) for each in made]

    def kill(self) -> None:
        """End it. One that has ended already stays as it is."""
        try:
            delete(self._http, self._path)
        except (Gone, NotFound):
            return

    def close(self) -> None:
        """Close its connection, if it is its own. The sandbox goes on."""
        if self._owns:
            self._http.close()

    @property
    def _processes(self) -> str:
        return f"{self._path}/processes"

    def _start(
        self,
        command: str | Sequence[str] | None,
        stdin: bytes | str | None,
        options: dict[str, Any],
    ) -> Started:
        body = params(
            command=command if command is None or isinstance(command, str) else list(command),
            stdin=None if stdin is None else content_of(stdin),
            **options,
        )
        patience = READ_TIMEOUT_S + body.get("wait_s", 0)
        timeout = httpx.Timeout(patience, connect=CONNECT_TIMEOUT_S)
        return call(self._http, STARTED, "POST", self._processes, json=body, timeout=timeout)

    def _told(self, method: str, path: str, **options: Any) -> SandboxInfo:
        self.info = call(self._http, SANDBOX, method, path, **options)
        return self.info


def created(
    http: httpx.Client, idempotency_key: str | None, options: dict[str, Any]
) -> SandboxInfo:
    """Make a sandbox with these fields of the API."""
    headers = keyed(idempotency_key)
    # A snapshot's files are put into it first, and what its template begins becomes ready first.
    slow = options.keys() & {"snapshot", "image"}
    timeout = PATIENT if slow else httpx.USE_CLIENT_DEFAULT
    return call(http, SANDBOX, "POST", ROUTE, json=options, headers=headers, timeout=timeout)
