"""`GET /v1/executions/{id}/events`: state changes and output as they happen, resumable."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent

from runner.api.deps import CanRead, ExecutionId, Parts
from runner.api.problems import responses
from runner.api.views import EventView
from runner.executions.follow import follow as follow_one
from runner.executions.read import find
from runner.words.execution import EventKind

router = APIRouter(prefix="/v1/executions", tags=["executions"])

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        description="The id of the last event that you have; the stream continues after it.",
        pattern=r"^[0-9]{1,18}$",
    ),
]


STREAMED: dict[str, Any] = {
    "description": "Server-sent events, until the execution has ended.",
    "content": {
        EventSourceResponse.media_type: {
            "itemSchema": {
                "properties": {
                    "event": {"enum": [kind.value for kind in EventKind]},
                    "data": {
                        "contentMediaType": "application/json",
                        "contentSchema": {"$ref": "#/components/schemas/EventView"},
                    },
                },
                "required": ["id", "event", "data"],
            }
        }
    },
}
"""FastAPI knows the frame of an event; what `data` holds is the `EventView` that is sent."""


async def must_exist(execution_id: ExecutionId, caller: CanRead, parts: Parts) -> None:
    """Refuse before the stream begins: afterwards there is no status left to send."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        await find(tx, execution_id)


@router.get(
    "/{execution_id}/events",
    summary="Follow an execution",
    response_class=EventSourceResponse,
    responses={200: STREAMED, **responses(HTTPStatus.NOT_FOUND)},
    dependencies=[Depends(must_exist)],
)
async def follow(
    execution_id: ExecutionId,
    caller: CanRead,
    parts: Parts,
    last_event_id: LastEventId = None,
) -> AsyncIterator[ServerSentEvent]:
    """Stream what happens, from the beginning until the execution has ended.

    Each event has an `id`, which rises by one, an `event`, and `data`: a JSON object with `attempt`
    and `at`. `state` adds `state`, and at the end `reason`, `detail`, `exit_code` and `signal`.
    `stdout` and `stderr` add `content` and its `encoding`. `egress` adds `egress`, a decision of
    the proxy. Fields without a value are left out. Lines that begin with a colon keep the
    connection open and mean nothing.

    To resume, send the last id that you have as `Last-Event-ID`: nothing is missed or repeated.
    """
    after = int(last_event_id or 0)
    events = follow_one(parts.database, parts.changes, caller, execution_id, after=after)
    async with aclosing(events):
        async for event in events:
            yield ServerSentEvent(
                event=event.kind.value,
                id=str(event.seq),
                raw_data=EventView.of(event).model_dump_json(exclude_none=True),
            )
