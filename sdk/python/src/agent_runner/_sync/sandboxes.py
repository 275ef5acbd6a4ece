# Written by scripts/make-sync from _async/sandboxes.py: change that.
"""Sandboxes that live: `client.sandboxes`."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from agent_runner._sync.calls import call, send
from agent_runner._sync.sandbox import ROUTE, Sandbox, created
from agent_runner.answers import EXPLANATION, RECEIPT, read
from agent_runner.living import SandboxInfo
from agent_runner.living_answers import SANDBOX, SANDBOXES
from agent_runner.transport import params


class Sandboxes:
    """The tenant's sandboxes, living and ended."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def create(self, *, idempotency_key: str | None = None, **options: Any) -> Sandbox:
        """Make a sandbox; `options` are the API's fields, such as `image`, `size`, `timeout_s`.

        Use the sandbox in a `with` statement, which kills it at the end. With an `idempotency_key`,
        this waits and tries again if the API says to. Raises ApiError.
        """
        return Sandbox(self._http, created(self._http, idempotency_key, options))

    def get(self, sandbox_id: str) -> Sandbox:
        """Return a sandbox."""
        path = f"{ROUTE}/{quote(sandbox_id, safe='')}"
        return Sandbox(self._http, call(self._http, SANDBOX, "GET", path))

    def explain(self, sandbox_id: str) -> dict[str, Any]:
        """Return why a sandbox started late, paused or ended: its `stages`, `wait`, `end`."""
        path = f"{ROUTE}/{quote(sandbox_id, safe='')}/explanation"
        return call(self._http, EXPLANATION, "GET", path)

    def receipt(self, sandbox_id: str) -> str:
        """Return the signed receipt of a sandbox that has ended, byte for byte."""
        path = f"{ROUTE}/{quote(sandbox_id, safe='')}/receipt"
        response = send(self._http, "GET", path)
        read(RECEIPT, response)
        return response.text

    def list(
        self,
        *,
        state: Sequence[str] = (),
        project: str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[Sequence[SandboxInfo], str | None]:
        """Return a page of sandboxes, newest first, and the cursor of the next one."""
        wanted = params(
            state=list(state),
            project=project,
            metadata=[f"{key}={value}" for key, value in (metadata or {}).items()],
            limit=limit,
            cursor=cursor,
        )
        return call(self._http, SANDBOXES, "GET", ROUTE, params=wanted)
