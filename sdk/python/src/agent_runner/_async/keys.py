"""The tenant's API keys: `client.keys`."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from urllib.parse import quote

import httpx

from agent_runner._async.calls import call, delete
from agent_runner.answers import KEY, KEYS, NEW_KEY
from agent_runner.transport import params
from agent_runner.types import ApiKey, NewApiKey

_KEYS = "/v1/keys"


class AsyncKeys:
    """API keys: made within what your own key has, rotated with an overlap, revoked at once."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def list(self) -> AsyncIterator[ApiKey]:
        """Yield every key of the tenant, newest first, with those that have ended."""
        cursor = None
        while True:
            asked = params(cursor=cursor, limit=200)
            found, cursor = await call(self._http, KEYS, "GET", _KEYS, params=asked)
            for each in found:
                yield each
            if cursor is None:
                return

    async def get(self, key_id: str) -> ApiKey:
        """Return a key. Raises NotFound when there is none."""
        return await call(self._http, KEY, "GET", _path(key_id))

    async def create(
        self,
        name: str,
        role: str,
        *,
        permissions: Sequence[str] | None = None,
        networks: Sequence[str] | None = None,
        expires_at: datetime | None = None,
    ) -> NewApiKey:
        """Make a key and return it with its token, this once.

        `permissions` are some of the role's, `networks` such as `192.0.2.0/24`. What you leave out
        is as in your own key. Raises NotPermitted for more than your own key has.
        """
        body = params(
            name=name,
            role=role,
            permissions=permissions and list(permissions),
            networks=networks and list(networks),
            expires_at=expires_at and expires_at.isoformat(),
        )
        return await call(self._http, NEW_KEY, "POST", _KEYS, json=body)

    async def rotate(self, key_id: str, *, overlap_s: float | None = None) -> NewApiKey:
        """Make a key of the same rights in its place, and return it with its token, this once.

        The old one stays valid for `overlap_s` seconds; by default, for as long as the API says.
        """
        body = params(overlap_s=overlap_s)
        return await call(self._http, NEW_KEY, "POST", f"{_path(key_id)}/rotate", json=body)

    async def revoke(self, key_id: str) -> None:
        """End a key at once, and the keys and invitations that it made."""
        await delete(self._http, _path(key_id))


def _path(key_id: str) -> str:
    return f"{_KEYS}/{quote(key_id, safe='')}"
