"""The body of an upload to `/v1/files`: stored as it comes, and checked."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus

from fastapi import HTTPException
from starlette.requests import ClientDisconnect

from runner.api import representation
from runner.store.objects import ObjectStore

UPLOAD_S = 3600.0
"""How long an upload may take: well below what retention takes for an abandoned one."""


async def received(
    objects: ObjectStore, body: AsyncIterator[bytes], promised: Sequence[bytes], key: str
) -> str:
    """Store the body as it comes; return its SHA-256 sum once it is whole and as promised."""
    digest = hashlib.sha256()

    async def hashed() -> AsyncIterator[bytes]:
        async for chunk in body:
            digest.update(chunk)
            yield chunk

    try:
        async with asyncio.timeout(UPLOAD_S):
            await objects.write(key, hashed())
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the body ended early") from None
    except TimeoutError:
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, "the body took too long") from None
    if any(each != digest.digest() for each in promised):
        raise representation.invalid("content-digest", "the body's sha-256 is another one")
    return digest.hexdigest()
