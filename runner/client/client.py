"""The client: one method for each thing the API does."""

import base64
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import httpx_sse

from runner.client.errors import Unavailable, from_response
from runner.client.files import Files
from runner.client.transport import base_url, call, params, send, stream, translated
from runner.client.types import (
    ENDED,
    Artifact,
    Event,
    Execution,
    StoredFile,
    decoded,
    execution_of,
    understood,
)

MAX_WAIT_S = 60
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
RESUME_AFTER_S = 0.5
_POLICIES = "/v1/egress-policies"
_SECRETS = "/v1/secrets"
MAX_RESUMES = 20


class Client:
    """A connection to one deployment with one API key. Not for use by several threads at once.

    `url` is where the deployment is. The address of its page `/docs` or of its `/v1` does as well.
    """

    def __init__(self, url: str, api_key: str) -> None:
        self._url = url = base_url(url)
        with translated():
            self._http = httpx.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {api_key}"},
                timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            )

    def __repr__(self) -> str:
        return f"Client({self._url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def submit(
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
        hold the result. Raises ApiError.
        """
        body: dict[str, Any] = {
            "code": code,
            "language": language,
            "command": command if command is None or isinstance(command, str) else list(command),
            "stdin": None if stdin is None else _content(stdin),
            "files": {path: _content(content) for path, content in (files or {}).items()},
            "wait_s": wait_s,
            **options,
        }
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        answer = self._call(
            "POST",
            "/v1/executions",
            json={name: value for name, value in body.items() if value is not None},
            headers=headers,
            timeout=httpx.Timeout(READ_TIMEOUT_S + wait_s, connect=CONNECT_TIMEOUT_S),
        )
        return execution_of(answer)

    def run(self, **submission: Any) -> Execution:
        """Submit a program and return it when it has ended, however long that takes."""
        return self.wait(self.submit(**{"wait_s": MAX_WAIT_S, **submission}))

    def wait(self, execution: Execution) -> Execution:
        """Return the execution when it has ended."""
        if execution.ended:
            return execution
        for _ in self.events(execution.id):
            pass
        return self.get(execution.id)

    def get(self, execution_id: str) -> Execution:
        """Return an execution."""
        return execution_of(self._call("GET", _path(execution_id)))

    def list(
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
        page = self._call("GET", "/v1/executions", params=wanted)
        with understood():
            return [execution_of(each) for each in page["items"]], page["next_cursor"]

    def cancel(self, execution_id: str) -> Execution:
        """Cancel an execution; one that has ended stays as it is."""
        return execution_of(self._call("POST", _path(execution_id, "cancel")))

    def events(self, execution_id: str, *, after: int = 0) -> Iterator[Event]:
        """Yield events until the execution ends; a broken connection is resumed where it was.

        Raises Unavailable when the API stays away.
        """
        failures = 0
        while True:
            before = after
            try:
                for event in self._stream(execution_id, after):
                    failures = 0
                    after = event.id
                    yield event
                    if event.data.get("state") in ENDED:
                        return
                # A proxy may close a stream in good order before its end: only one that had
                # nothing more to say, of an execution that has ended, is known to be whole.
                if after == before and self.get(execution_id).ended:
                    return
            except Unavailable:
                failures += 1
                if failures > MAX_RESUMES:
                    raise
            time.sleep(RESUME_AFTER_S)

    def artifacts(self, execution_id: str) -> Sequence[Artifact]:
        """Return the files an execution left."""
        found = self._call("GET", _path(execution_id, "artifacts"))
        return [Artifact(**each) for each in found["items"]]

    def download(self, execution_id: str, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """Yield an artifact's bytes in pieces."""
        return stream(self._http, f"{_path(execution_id, 'artifacts')}/{quote(path)}")

    def audit(
        self, *, cursor: str | None = None, limit: int = 100, **filters: Any
    ) -> dict[str, Any]:
        """Return a page of audit records: `items` and `next_cursor`."""
        return self._call("GET", "/v1/audit", params=params(cursor=cursor, limit=limit, **filters))

    def receipt(self, execution_id: str) -> str:
        """Return the signed receipt of an execution that has ended, byte for byte."""
        return self._send("GET", _path(execution_id, "receipt")).text

    def signing_keys(self) -> Mapping[str, str]:
        """Return the deployment's public keys (PEM) by their ids."""
        return {key["id"]: key["pem"] for key in self._call("GET", "/v1/signing-keys")["items"]}

    def egress_policies(self) -> Sequence[dict[str, Any]]:
        """Return the tenant's named egress policies."""
        items: Sequence[dict[str, Any]] = self._call("GET", _POLICIES)["items"]
        return items

    def put_egress_policy(
        self, name: str, rules: Sequence[str | Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Store a named egress policy, in place of one of that name; return it in full."""
        return self._call("PUT", f"{_POLICIES}/{quote(name, safe='')}", json={"rules": list(rules)})

    def delete_egress_policy(self, name: str) -> None:
        """Forget a named egress policy. Raises ApiError when there is none."""
        self._send("DELETE", f"{_POLICIES}/{quote(name, safe='')}")

    def secrets(self) -> Sequence[dict[str, Any]]:
        """Return the names of the tenant's secrets and when they were written. No values."""
        items: Sequence[dict[str, Any]] = self._call("GET", _SECRETS)["items"]
        return items

    def put_secret(self, name: str, value: str) -> dict[str, Any]:
        """Store a secret, in place of one of that name; its value cannot be read back."""
        return self._call("PUT", f"{_SECRETS}/{quote(name, safe='')}", json={"value": value})

    def delete_secret(self, name: str) -> None:
        """Forget a secret. Raises ApiError when there is none."""
        self._send("DELETE", f"{_SECRETS}/{quote(name, safe='')}")

    def usage(self, *, first: str | None = None, last: str | None = None) -> dict[str, Any]:
        """Return what the tenant used from one day (ISO 8601, UTC) to another, and its quotas."""
        return self._call("GET", "/v1/usage", params=params(**{"from": first, "to": last}))

    @property
    def files(self) -> Files:
        """The tenant's stored files."""
        return Files(self._http)

    def verify_audit(self, *, seq: int | None = None, hash_: str | None = None) -> dict[str, Any]:
        """Return whether the tenant's audit log is whole, and has the record that you know."""
        wanted = params(seq=seq, hash=hash_)
        return self._call("GET", "/v1/audit/verification", params=wanted)

    def export_audit(self, **filters: Any) -> AbstractContextManager[Iterator[bytes]]:
        """Yield the audit log as NDJSON in pieces; it is whole if its last line is a checkpoint."""
        return stream(self._http, "/v1/audit/export", params=params(**filters))

    def audit_webhook(self) -> dict[str, Any]:
        """Return where the audit log is forwarded to. Raises NotFound when it is not."""
        return self._call("GET", "/v1/audit/webhook")

    def put_audit_webhook(self, url: str) -> dict[str, Any]:
        """Forward the audit log there; return it with its signing secret, this once."""
        return self._call("PUT", "/v1/audit/webhook", json={"url": url})

    def delete_audit_webhook(self) -> None:
        """Forward the audit log no more. Raises NotFound when it is not forwarded."""
        self._send("DELETE", "/v1/audit/webhook")

    def _stream(self, execution_id: str, after: int) -> Iterator[Event]:
        headers = {"Last-Event-ID": str(after)} if after else {}
        path = _path(execution_id, "events")
        with (
            translated(),
            httpx_sse.connect_sse(self._http, "GET", path, headers=headers) as source,
        ):
            if source.response.is_error:
                source.response.read()
                raise from_response(source.response)
            for sent in source.iter_sse():
                if not sent.data:
                    continue  # A keep-alive: a comment, which ends an event without any data.
                data = json.loads(sent.data)
                raw = decoded(data.get("content", ""), data.get("encoding", "utf-8"))
                yield Event(id=int(sent.id), kind=sent.event, data=data, raw=raw)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return call(self._http, method, path, **options)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        return send(self._http, method, path, **options)


def _path(execution_id: str, *below: str) -> str:
    return "/".join(("/v1/executions", quote(execution_id, safe=""), *below))


def _content(content: bytes | str | StoredFile | Mapping[str, str]) -> Mapping[str, str]:
    if isinstance(content, Mapping):
        return content
    if isinstance(content, StoredFile):
        return {"key": content.path}
    if isinstance(content, str):
        return {"text": content}
    return {"base64": base64.b64encode(content).decode()}
