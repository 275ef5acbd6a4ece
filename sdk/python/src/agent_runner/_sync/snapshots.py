# Written by scripts/make-sync from _async/snapshots.py: change that.
"""Snapshots: `client.snapshots`."""

from collections.abc import Sequence
from urllib.parse import quote

import httpx

from agent_runner._sync.calls import call, delete
from agent_runner.living import SnapshotInfo
from agent_runner.living_answers import SNAPSHOT, SNAPSHOTS
from agent_runner.transport import params

_SNAPSHOTS = "/v1/snapshots"


class Snapshots:
    """The tenant's snapshots. `client.sandboxes.create(snapshot=id)` makes a sandbox from one."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def get(self, snapshot_id: str) -> SnapshotInfo:
        """Return a snapshot. Raises ApiError."""
        return call(self._http, SNAPSHOT, "GET", _path(snapshot_id))

    def list(
        self, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[Sequence[SnapshotInfo], str | None]:
        """Return a page of snapshots, newest first, and the cursor of the next one."""
        wanted = params(limit=limit, cursor=cursor)
        return call(self._http, SNAPSHOTS, "GET", _SNAPSHOTS, params=wanted)

    def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot; sandboxes made from it keep their files. Raises ApiError."""
        delete(self._http, _path(snapshot_id))


def _path(snapshot_id: str) -> str:
    return f"{_SNAPSHOTS}/{quote(snapshot_id, safe='')}"
