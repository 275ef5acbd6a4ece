"""The client: one method for each thing the API does."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from agent_runner import answers
from agent_runner._async.calls import call, connection, delete, events, send, stream
from agent_runner._async.files import AsyncFiles
from agent_runner._async.keys import AsyncKeys
from agent_runner._async.local import sleep
from agent_runner._async.members import AsyncMembers
from agent_runner._async.projects import AsyncProjects
from agent_runner._async.sandboxes import AsyncSandboxes
from agent_runner._async.snapshots import AsyncSnapshots
from agent_runner._async.templates import AsyncTemplates
from agent_runner.address import address
from agent_runner.answers import Answer
from agent_runner.errors import Unavailable
from agent_runner.transport import (
    CONNECT_TIMEOUT_S,
    MAX_RESUMES,
    READ_TIMEOUT_S,
    REPEATABLE,
    RESUME_AFTER_S,
    RETRY_FOR_S,
    params,
)
from agent_runner.types import ENDED, Artifact, Event, Execution, StoredFile, content_of

MAX_WAIT_S = 60
_POLICIES = "/v1/egress-policies"
_SECRETS = "/v1/secrets"
_WEBHOOK = "/v1/audit/webhook"

T = TypeVar("T")


class AsyncClient:
    """A connection to one deployment with one API key. Not for use by several threads at once.

    `url` is where the deployment is. The address of its page `/docs` or of its `/v1` does as well.
    What you leave out comes from `RUNNER_URL` and `RUNNER_API_KEY`. Raises ValueError without them.

    When the API answers 429 and says when to ask again, a request waits and is repeated, for
    `retry_for_s` seconds at most in all (0: never); TooMany is raised at once if that would not be
    enough. Only what is safe to repeat waits: whatever reads, replaces, deletes, cancels, pauses or
    resumes, and a submission or a new sandbox with an idempotency key.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retry_for_s: float = RETRY_FOR_S,
    ) -> None:
        self._http = connection(*address(url, api_key), retry_for_s=retry_for_s)

    def __repr__(self) -> str:
        return f"AsyncClient({str(self._http.base_url)!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def submit(
        self,
        *,
        code: str | None = None,
        language: str | None = None,
        command: str | Sequence[str] | None = None,
        stdin: bytes | str | None = None,
        files: Mapping[str, bytes | str | StoredFile | Mapping[str, str]] | None = None,
        idempotency_key: str | None = None,
        wait_s: float = 0,
        **options: Any,
    ) -> Execution:
        """Submit a program; `options` are the API's other fields, such as `size` or `limits`.

        A `command` that is a list is a program and its arguments; a string is a line for a shell. A
        file of `files` may be a stored one, or `{"key": name}` of one. With `wait_s` the answer may
        hold the result. With an `idempotency_key`, it waits where the API says to. Raises ApiError.
        """
        body: dict[str, Any] = {
            "code": code,
            "language": language,
            "command": command if command is None or isinstance(command, str) else list(command),
            "stdin": None if stdin is None else content_of(stdin),
            "files": {path: content_of(content) for path, content in (files or {}).items()},
            "wait_s": wait_s,
            **options,
        }
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return await self._call(
            answers.EXECUTION,
            "POST",
            "/v1/executions",
            json={name: value for name, value in body.items() if value is not None},
            headers=headers,
            timeout=httpx.Timeout(READ_TIMEOUT_S + wait_s, connect=CONNECT_TIMEOUT_S),
        )

    async def run(self, **submission: Any) -> Execution:
        """Submit a program and return it when it has ended, however long that takes."""
        return await self.wait(await self.submit(**{"wait_s": MAX_WAIT_S, **submission}))

    async def wait(self, execution: Execution | str) -> Execution:
        """Return an execution, or that of an id, when it has ended."""
        if isinstance(execution, Execution) and execution.ended:
            return execution
        execution_id = execution if isinstance(execution, str) else execution.id
        async for _ in self.events(execution_id):
            pass
        return await self.get(execution_id)

    async def get(self, execution_id: str) -> Execution:
        """Return an execution."""
        return await self._call(answers.EXECUTION, "GET", _path(execution_id))

    async def list(
        self,
        *,
        state: Sequence[str] = (),
        project: str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[Sequence[Execution], str | None]:
        """Return a page of executions, newest first, and the cursor of the next one.

        With `metadata`, only executions that have each of these labels.
        """
        wanted = params(
            state=list(state),
            project=project,
            metadata=[f"{key}={value}" for key, value in (metadata or {}).items()],
            limit=limit,
            cursor=cursor,
        )
        return await self._call(answers.EXECUTIONS, "GET", "/v1/executions", params=wanted)

    async def cancel(self, execution_id: str) -> Execution:
        """Cancel an execution; one that has ended stays as it is."""
        path = _path(execution_id, "cancel")
        return await self._call(answers.EXECUTION, "POST", path, extensions=REPEATABLE)

    async def events(self, execution_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """Yield events until the execution ends; a broken connection is resumed where it was.

        Raises Unavailable when the API stays away.
        """
        failures = 0
        while True:
            before = after
            try:
                async for event in self._stream(execution_id, after):
                    failures = 0
                    after = event.id
                    yield event
                    if event.data.get("state") in ENDED:
                        return
                # A proxy may close a stream in good order before its end: only one that had
                # nothing more to say, of an execution that has ended, is known to be whole.
                if after == before and (await self.get(execution_id)).ended:
                    return
            except Unavailable:
                failures += 1
                if failures > MAX_RESUMES:
                    raise
            await sleep(RESUME_AFTER_S)

    async def artifacts(self, execution_id: str) -> Sequence[Artifact]:
        """Return the files an execution left."""
        return await self._call(answers.ARTIFACTS, "GET", _path(execution_id, "artifacts"))

    def download(
        self, execution_id: str, path: str
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Yield an artifact's bytes in pieces."""
        return stream(self._http, f"{_path(execution_id, 'artifacts')}/{quote(path)}")

    async def audit(
        self, *, cursor: str | None = None, limit: int = 100, **filters: Any
    ) -> dict[str, Any]:
        """Return a page of audit records: `items` and `next_cursor`."""
        wanted = params(cursor=cursor, limit=limit, **filters)
        return await self._call(answers.AUDIT, "GET", "/v1/audit", params=wanted)

    async def receipt(self, execution_id: str) -> str:
        """Return the signed receipt of an execution that has ended, byte for byte."""
        response = await send(self._http, "GET", _path(execution_id, "receipt"))
        answers.read(answers.RECEIPT, response)
        return response.text

    async def explain(self, execution_id: str) -> dict[str, Any]:
        """Return why an execution waited, was refused or ended: its `stages`, `wait`, `end`."""
        path = _path(execution_id, "explanation")
        return await self._call(answers.EXPLANATION, "GET", path)

    async def signing_keys(self) -> Mapping[str, str]:
        """Return the deployment's public keys (PEM) by their ids."""
        found = await self._call(answers.SIGNING_KEYS, "GET", "/v1/signing-keys")
        return {key["id"]: key["pem"] for key in found}

    async def egress_policies(self) -> Sequence[dict[str, Any]]:
        """Return the tenant's named egress policies."""
        return await self._call(answers.POLICIES, "GET", _POLICIES)

    async def egress_policy(self, name: str) -> dict[str, Any]:
        """Return a named egress policy. Raises NotFound when there is none."""
        return await self._call(answers.POLICY, "GET", f"{_POLICIES}/{quote(name, safe='')}")

    async def put_egress_policy(
        self, name: str, rules: Sequence[str | Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Store a named egress policy, in place of one of that name; return it in full."""
        path = f"{_POLICIES}/{quote(name, safe='')}"
        return await self._call(answers.POLICY, "PUT", path, json={"rules": list(rules)})

    async def delete_egress_policy(self, name: str) -> None:
        """Forget a named egress policy. Raises ApiError when there is none."""
        await delete(self._http, f"{_POLICIES}/{quote(name, safe='')}")

    async def secrets(self) -> Sequence[dict[str, Any]]:
        """Return the names of the tenant's secrets and when they were written. No values."""
        return await self._call(answers.SECRETS, "GET", _SECRETS)

    async def put_secret(self, name: str, value: str) -> dict[str, Any]:
        """Store a secret, in place of one of that name; its value cannot be read back."""
        path = f"{_SECRETS}/{quote(name, safe='')}"
        return await self._call(answers.SECRET, "PUT", path, json={"value": value})

    async def delete_secret(self, name: str) -> None:
        """Forget a secret. Raises ApiError when there is none."""
        await delete(self._http, f"{_SECRETS}/{quote(name, safe='')}")

    async def usage(self, *, first: str | None = None, last: str | None = None) -> dict[str, Any]:
        """Return what the tenant used from one day (ISO 8601, UTC) to another, and its quotas."""
        wanted = params(**{"from": first, "to": last})
        return await self._call(answers.USAGE, "GET", "/v1/usage", params=wanted)

    async def me(self) -> dict[str, Any]:
        """Return who you are: `tenant`, `role`, `permissions`, …."""
        return await self._call(answers.ME, "GET", "/v1/me")

    @property
    def members(self) -> AsyncMembers:
        """The members of the tenant."""
        return AsyncMembers(self._http)

    @property
    def projects(self) -> AsyncProjects:
        """The tenant's projects."""
        return AsyncProjects(self._http)

    @property
    def files(self) -> AsyncFiles:
        """The tenant's stored files."""
        return AsyncFiles(self._http)

    @property
    def keys(self) -> AsyncKeys:
        """The tenant's API keys."""
        return AsyncKeys(self._http)

    @property
    def sandboxes(self) -> AsyncSandboxes:
        """The tenant's sandboxes that live."""
        return AsyncSandboxes(self._http)

    @property
    def snapshots(self) -> AsyncSnapshots:
        """The files of sandboxes that the tenant keeps."""
        return AsyncSnapshots(self._http)

    @property
    def templates(self) -> AsyncTemplates:
        """The templates that the tenant has built for its sandboxes."""
        return AsyncTemplates(self._http)

    async def verify_audit(
        self, *, seq: int | None = None, hash_: str | None = None
    ) -> dict[str, Any]:
        """Return whether the tenant's audit log is whole, and has the record that you know."""
        wanted = params(seq=seq, hash=hash_)
        return await self._call(
            answers.VERIFICATION, "GET", "/v1/audit/verification", params=wanted
        )

    def export_audit(self, **filters: Any) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Yield the audit log as NDJSON in pieces; it is whole if its last line is a checkpoint."""
        path, kind = "/v1/audit/export", "application/x-ndjson"
        return stream(self._http, path, kind=kind, params=params(**filters))

    async def audit_webhook(self) -> dict[str, Any]:
        """Return where the audit log is forwarded to. Raises NotFound when it is not."""
        return await self._call(answers.WEBHOOK, "GET", _WEBHOOK)

    async def put_audit_webhook(self, url: str) -> dict[str, Any]:
        """Forward the audit log there; return it with its signing secret, this once."""
        return await self._call(answers.NEW_WEBHOOK, "PUT", _WEBHOOK, json={"url": url})

    async def delete_audit_webhook(self) -> None:
        """Forward the audit log no more. Raises NotFound when it is not forwarded."""
        await delete(self._http, _WEBHOOK)

    def _stream(self, execution_id: str, after: int) -> AsyncIterator[Event]:
        headers = {"Last-Event-ID": str(after)} if after else {}
        path = _path(execution_id, "events")
        return events(self._http, answers.EVENT, path, headers=headers)

    async def _call(self, answer: Answer[T], method: str, path: str, **options: Any) -> T:
        return await call(self._http, answer, method, path, **options)


def _path(execution_id: str, *below: str) -> str:
    return "/".join(("/v1/executions", quote(execution_id, safe=""), *below))
