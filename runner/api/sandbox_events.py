"""`GET /v1/sandboxes/{id}/events`: what happens to a sandbox and in it, as it happens."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import ConfigDict

from runner.api.deps import CanReadSandboxes, Parts, SandboxId
from runner.api.problems import responses
from runner.api.sandbox_views import signal_name
from runner.api.views import View
from runner.sandboxes.events import EventPlace, SandboxEvent, SandboxEventKind
from runner.sandboxes.events import follow as follow_one

router = APIRouter(prefix="/v1/sandboxes", tags=["sandboxes"])

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        description="The id of the last event that you have; the stream goes on after it.",
        pattern=r"^[0-9]{1,18}-[0-9]{1,4}$",
    ),
]

STREAMED: dict[str, Any] = {
    "description": "Server-sent events, until the sandbox has ended.",
    "content": {
        EventSourceResponse.media_type: {
            "itemSchema": {
                "properties": {
                    "event": {"enum": [kind.value for kind in SandboxEventKind]},
                    "data": {
                        "contentMediaType": "application/json",
                        "contentSchema": {"$ref": "#/components/schemas/SandboxEventView"},
                    },
                },
                "required": ["id", "event", "data"],
            }
        }
    },
}


class SandboxEventView(View):
    """Something that happened to a sandbox, as the `data` of a server-sent event."""

    model_config = ConfigDict(extra="allow")

    at: datetime

    @classmethod
    def of(cls, event: SandboxEvent) -> Self:
        """Return the view of an event; its facts depend on its kind."""
        told: dict[str, Any] = {"at": event.at, **event.facts}
        if event.kind is SandboxEventKind.PROCESS_ENDED:
            told["signal"] = signal_name(told.get("signal"))
        return cls.model_validate(told)


async def must_exist(sandbox_id: SandboxId, caller: CanReadSandboxes, parts: Parts) -> None:
    """Refuse before the stream begins: afterwards it is too late to refuse with a status."""
    await parts.sandboxes.read(caller, sandbox_id)


@router.get(
    "/{sandbox_id}/events",
    summary="Follow a sandbox",
    response_class=EventSourceResponse,
    responses={200: STREAMED, **responses(HTTPStatus.NOT_FOUND)},
    dependencies=[Depends(must_exist)],
)
async def events(
    sandbox_id: SandboxId,
    caller: CanReadSandboxes,
    parts: Parts,
    last_event_id: LastEventId = None,
    *,
    follow: Annotated[
        bool, Query(description="Go on until it has ended, not only to what is there.")
    ] = True,
) -> AsyncIterator[ServerSentEvent]:
    """Stream what happens to a sandbox and in it, from its creation until it has ended.

    `life` has its new `state`, and at the end `reason`. `change` has what a client changed.
    `process_started` and `process_ended` have the `process`, its program's name and number of
    arguments, or how it ended. `files` counts transfers. `egress` is a decision of the proxy.
    Every event has `at`. An event arrives within about a second. Lines that begin with a colon
    keep the connection open and mean nothing.

    To resume, send the last id that you have as `Last-Event-ID`: nothing is missed or repeated.
    """
    after = EventPlace.read(last_event_id) if last_event_id else EventPlace()
    found = follow_one(
        parts.database, parts.changes, caller, sandbox_id, after=after, follow=follow
    )
    async with aclosing(found):
        async for event in found:
            yield ServerSentEvent(
                event=event.kind.value,
                id=str(event.place),
                raw_data=SandboxEventView.of(event).model_dump_json(),
            )
