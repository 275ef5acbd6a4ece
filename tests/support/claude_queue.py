"""The queue of a self-hosted environment of Claude's managed agents, over real HTTP.

Made of the types of Anthropic's package: every answer is one of its models, validated. An agent is
a list of tool calls, each sent once the result of the one before it is there.
"""

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar

import uvicorn
from anthropic.types.beta import BetaManagedAgentsSession
from anthropic.types.beta.environments import (
    BetaHeartbeatPreconditionFailedErrorDetails,
    BetaSelfHostedWork,
    BetaSelfHostedWorkHeartbeatResponse,
)
from anthropic.types.beta.sessions import (
    BetaManagedAgentsAgentToolUseEvent,
    BetaManagedAgentsSessionStatusIdleEvent,
    BetaManagedAgentsSessionStatusTerminatedEvent,
)
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

ENVIRONMENT = "env_test"
KEY = "sk-ant-env-test"

Model = TypeVar("Model", bound=BaseModel)


def now() -> str:
    """Return the time as the API writes it."""
    return datetime.now(UTC).isoformat()


@dataclass
class Session:
    """A session that waits in the queue, and what has happened in it."""

    calls: Sequence[tuple[str, dict[str, Any]]]
    ttl_s: int
    resources: Sequence[dict[str, Any]] = ()
    id: str = "session_1"
    state: str = "queued"
    token: str = "a-token-of-this-session"  # noqa: S105 - of a server that the test makes
    heartbeats: list[str] = field(default_factory=list)
    workers: list[str] = field(default_factory=list)
    beaten_at: float = 0.0
    events: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def answers(self) -> list[str]:
        """The text of each result."""
        return [each["content"][0].get("text", "") for each in self.results]

    def reclaim(self) -> None:
        """Queue it again if its lease has ended."""
        if self.state in {"starting", "active"} and time.monotonic() - self.beaten_at > self.ttl_s:
            self.state = "queued"

    def go_on(self) -> None:
        """Let the agent make its next call, or end."""
        made = sum(each["type"] == "agent.tool_use" for each in self.events)
        if made > len(self.results):
            return
        head = {"id": f"event_{len(self.events)}", "processed_at": now()}
        if made < len(self.calls):
            name, given = self.calls[made]
            event = {**head, "type": "agent.tool_use", "name": name, "input": given}
            self.events.append(_plain(BetaManagedAgentsAgentToolUseEvent, event))
        elif not any(each["type"] == "session.status_idle" for each in self.events):
            event = {**head, "type": "session.status_idle", "stop_reason": {"type": "end_turn"}}
            self.events.append(_plain(BetaManagedAgentsSessionStatusIdleEvent, event))

    def terminate(self) -> None:
        """End it, as somebody who archives it does."""
        head = {"id": f"event_{len(self.events)}", "processed_at": now()}
        event = {**head, "type": "session.status_terminated"}
        self.events.append(_plain(BetaManagedAgentsSessionStatusTerminatedEvent, event))

    def work(self, **more: Any) -> dict[str, Any]:
        """Return it as an item of the queue."""
        return _plain(
            BetaSelfHostedWork,
            {
                "id": f"work_{self.id}", "type": "work", "created_at": now(), "metadata": {},
                "environment_id": ENVIRONMENT, "state": self.state,
                "data": {"id": self.id, "type": "session"}, **more,
            },
        )  # fmt: skip

    def described(self) -> dict[str, Any]:
        """Return it as a session."""
        agent = {
            "id": "agent_1", "type": "agent", "name": "test", "version": 1, "mcp_servers": [],
            "model": {"id": "claude-test"}, "skills": [], "tools": [],
            "execution_identity": {"type": "service_account"},
        }  # fmt: skip
        return _plain(
            BetaManagedAgentsSession,
            {
                "id": self.id, "type": "session", "status": "running", "agent": agent,
                "created_at": now(), "updated_at": now(), "environment_id": ENVIRONMENT,
                "metadata": {}, "outcome_evaluations": [], "resources": list(self.resources),
                "stats": {}, "usage": {}, "vault_ids": [],
            },
        )  # fmt: skip


def _plain(model: type[Model], values: dict[str, Any]) -> dict[str, Any]:
    """Return what the package's own type makes of these values. Raises ValidationError."""
    return model.model_validate(values).model_dump(mode="json", by_alias=True)


@contextmanager
def queue_of(*sessions: Session) -> Iterator[str]:
    """Serve a queue of these sessions; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(_Queue(sessions).app(), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


class _Queue:
    """The routes: the environment's key polls, and a session's token does the rest."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = {each.id: each for each in sessions}

    def app(self) -> FastAPI:
        """Return the routes."""
        app = FastAPI()
        items = f"/v1/environments/{ENVIRONMENT}/work"
        events = "/v1/sessions/{session_id}/events"
        app.get(f"{items}/poll")(self.poll)
        app.post(f"{items}/{{work_id}}/ack")(self.ack)
        app.post(f"{items}/{{work_id}}/heartbeat")(self.heartbeat)
        app.post(f"{items}/{{work_id}}/stop")(self.stop)
        app.get("/v1/sessions/{session_id}")(self.retrieve)
        app.get(events)(self.list_events)
        app.get(f"{events}/stream")(self.stream)
        app.post(events)(self.send)
        return app

    async def poll(self, request: Request) -> Any:
        """Give away the next session, with a token for it."""
        _require(request, KEY)
        for each in self._sessions.values():
            each.reclaim()
            if each.state == "queued":
                each.state, each.beaten_at = "starting", time.monotonic()
                each.heartbeats.clear()
                each.workers.append(request.headers["anthropic-worker-id"])
                bundle = json.dumps({"sessions_token": each.token}).encode()
                return each.work(secret=base64.urlsafe_b64encode(bundle).decode().rstrip("="))
        await asyncio.sleep(0.1)
        return None

    async def ack(self, request: Request, work_id: str) -> Any:
        """Take note that it has arrived."""
        _require(request, KEY)
        return self._of_work(work_id).work(acknowledged_at=now())

    async def heartbeat(self, request: Request, work_id: str, expected_last_heartbeat: str) -> Any:
        """Extend a lease for whoever holds it."""
        session = self._of_work(work_id)
        _require(request, session.token)
        session.reclaim()
        last = session.heartbeats[-1] if session.heartbeats else "NO_HEARTBEAT"
        if session.state not in {"starting", "active"} or last != expected_last_heartbeat:
            lease = {"lease_extended": False, "state": session.state, "ttl_seconds": session.ttl_s}
            details = {"error_code": "heartbeat_precondition_failed", "current_state": lease}
            told = _plain(BetaHeartbeatPreconditionFailedErrorDetails, details)
            error = {"type": "error", "error": {"type": "invalid_request_error", "details": told}}
            return JSONResponse(error, 412)
        session.state, session.beaten_at = "active", time.monotonic()
        session.heartbeats.append(now())
        return _plain(
            BetaSelfHostedWorkHeartbeatResponse,
            {
                "last_heartbeat": session.heartbeats[-1], "lease_extended": True,
                "state": "active", "ttl_seconds": session.ttl_s, "type": "work_heartbeat",
            },
        )  # fmt: skip

    async def stop(self, request: Request, work_id: str) -> Any:
        """End a lease."""
        session = self._of_work(work_id)
        _require(request, session.token)
        session.state = "stopped"
        session.stopped.set()
        return session.work(stopped_at=now())

    async def retrieve(self, request: Request, session_id: str) -> Any:
        """Describe a session."""
        return self._of(request, session_id).described()

    async def list_events(self, request: Request, session_id: str) -> Any:
        """Return what has happened in a session."""
        return {"data": self._of(request, session_id).events, "next_page": None}

    async def stream(self, request: Request, session_id: str) -> StreamingResponse:
        """Send what happens in a session."""
        events = _events(self._of(request, session_id), request)
        return StreamingResponse(events, media_type="text/event-stream")

    async def send(self, request: Request, session_id: str) -> Any:
        """Take the results of tool calls."""
        session = self._of(request, session_id)
        for each in (await request.json())["events"]:
            session.results.append(each)
            id_ = f"event_{len(session.events)}"
            session.events.append({**each, "id": id_, "processed_at": now()})
        return {"data": []}

    def _of(self, request: Request, session_id: str) -> Session:
        session = self._sessions[session_id]
        _require(request, session.token)
        return session

    def _of_work(self, work_id: str) -> Session:
        return self._sessions[work_id.removeprefix("work_")]


def _require(request: Request, credential: str) -> None:
    if request.headers.get("authorization") != f"Bearer {credential}":
        raise HTTPException(HTTPStatus.UNAUTHORIZED, "a wrong credential")


async def _events(session: Session, request: Request) -> AsyncIterator[bytes]:
    """Yield what happens from now on; the agent acts while somebody listens."""
    at = len(session.events)
    # Whoever listens reads the history first, and would see the same event twice.
    await asyncio.sleep(0.2)
    while not await request.is_disconnected():
        session.go_on()
        for event in session.events[at:]:
            yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        at = len(session.events)
        await asyncio.sleep(0.02)
