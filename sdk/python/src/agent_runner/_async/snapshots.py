"""Snapshots: `client.snapshots`."""

from collections.abc import Sequence
from urllib.parse import quote

import httpx

from agent_runner._async.calls import call, delete
from agent_runner.living import SnapshotInfo
from agent_runner.living_answers import SNAPSHOT, SNAPSHOTS
from agent_runner.transport import params

_SNAPSHOTS = "/v1/snapshots"


class AsyncSnapshots:
    """The tenant's snapshots. `client.sandboxes.create(snapshot=id)` makes a sandbox from one."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def get(self, snapshot_id: str) -> SnapshotInfo:
        """Return a snapshot. Raises ApiError."""
        return await call(self._http, SNAPSHOT, "GET", _path(snapshot_id))

    async def list(
        self, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[Sequence[SnapshotInfo], str | None]:
        """Return a page of snapshots, newest first, and the cursor of the next one."""
        wanted = params(limit=limit, cursor=cursor)
        return await call(self._http, SNAPSHOTS, "GET", _SNAPSHOTS, params=wanted)

    async def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot; sandboxes made from it keep their files. Raises ApiError."""
        await delete(self._http, _path(snapshot_id))


def _path(snapshot_id: str) -> str:
    return f"{_SNAPSHOTS}/{quote(snapshot_id, safe='')}"
