"""How a WebSocket to the API ends, or does not begin, as our errors."""

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agent_runner.answers import media_type
from agent_runner.errors import ApiError, from_closing, from_response, from_stranger, told
from agent_runner.transport import retry_after_s


def refused(error: InvalidStatus, url: httpx.URL) -> ApiError:
    """Return the failure of a WebSocket that was answered with something else."""
    answer = httpx.Response(
        error.response.status_code,
        headers=list(error.response.headers.raw_items()),
        content=bytes(error.response.body or b""),
        request=httpx.Request("GET", url.copy_with(query=None)),
    )
    if answer.is_success:
        return from_stranger(answer, told(media_type(answer)), "a WebSocket")
    return from_response(answer, retry_after_s=retry_after_s(answer))


def closed(error: ConnectionClosed) -> ApiError:
    """Return the failure that a closing is."""
    said = error.rcvd
    return from_closing(said.code if said else None, said.reason if said else "")
