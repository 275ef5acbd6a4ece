"""`/v1/sandboxes/{id}/files/signed`: addresses by which others read or write one file."""

from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import ConfigDict, Field

from runner.api import downloads
from runner.api.callers import ADDRESSED
from runner.api.deps import CanUseSandboxes, Parts, SandboxId
from runner.api.downloads import Download
from runner.api.edge.json import JsonRoute
from runner.api.fields import Strict
from runner.api.problems import JSON_TAKEN, responses
from runner.api.sandbox_files import DOWNLOADED, UPLOADED, Range
from runner.api.sandbox_requests import SandboxPath
from runner.api.sandbox_views import FileEntryView
from runner.api.uploads import BYTES, plain, taken
from runner.api.views import View
from runner.sandboxes.addresses import LONGEST, AddressedFile, FileOperation

MOST_S = 7 * 86_400
DEFAULT_S = 3600

router = APIRouter(
    prefix="/v1/sandboxes/{sandbox_id}/files/signed", tags=["sandbox files"], route_class=JsonRoute
)


class Signing(Strict):
    """A file to sign an address of."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"path": "out/report.pdf", "operation": "read", "expires_s": 600}]
        }
    )

    path: SandboxPath = Field(description="Absolute, or relative to `/workspace`.")
    operation: Annotated[FileOperation, Field(strict=False)] = Field(
        description="What the address is good for: `read`, by GET, or `write`, by PUT."
    )
    expires_s: Annotated[float, Field(ge=1, le=MOST_S)] = Field(
        default=DEFAULT_S, description="For how many seconds it is good."
    )


class SignedAddressView(View):
    """An address that needs no key. Whoever has it may use it, so treat it as a secret."""

    url: str = Field(description="Relative to the API's own address; shown only here.")
    path: str
    operation: FileOperation
    expires_at: datetime = Field(
        description="When it ends, with transfers that are under way; sooner than asked for if the "
        "key or token that you use ends sooner."
    )


@router.post(
    "",
    summary="Sign an address of a file in a sandbox",
    status_code=HTTPStatus.CREATED,
    responses=responses(*JSON_TAKEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE),
)
async def sign(
    body: Signing, sandbox_id: SandboxId, caller: CanUseSandboxes, parts: Parts
) -> SignedAddressView:
    """Let whoever has the address read or write one file, without a key.

    The address lends your right, and ends with it: when your key is revoked or expires, when your
    session ends, or with the sandbox. Nobody looks whether there is such a file yet.
    """
    made = await parts.addresses.sign(caller, sandbox_id, body.path, body.operation, body.expires_s)
    query = urlencode({"path": body.path, "token": made.token}, quote_via=quote)
    return SignedAddressView(
        url=f"/v1/sandboxes/{sandbox_id}/files/signed/content?{query}",
        path=body.path,
        operation=body.operation,
        expires_at=made.expires_at,
    )


async def addressed(
    request: Request,
    caller: CanUseSandboxes,
    sandbox_id: SandboxId,
    parts: Parts,
    # Authentication has checked both.
    _path: Annotated[
        SandboxPath,
        Query(alias="path", description="As it was signed.", examples=["out/report.pdf"]),
    ],
    _token: Annotated[
        str,
        Query(
            alias="token",
            max_length=LONGEST,
            description="As it was signed.",
            examples=["fa_AAAA"],
        ),
    ],
) -> AddressedFile:
    """Return what the address permits, once its use is on record."""
    file: AddressedFile = request.scope[ADDRESSED]
    await parts.addresses.used(caller, sandbox_id, file)
    return file


Addressed = Annotated[AddressedFile, Depends(addressed)]


async def opened_by_address(
    file: Addressed,
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
    range_: Range = None,
) -> AsyncIterator[Download]:
    """Open the file before the answer begins, and close it whichever way the answer ends."""
    read = partial(parts.using.read_file, caller, sandbox_id, file.path)
    async with downloads.opened(read, range_) as download:
        yield download


@router.get(
    "/content",
    summary="Read a file by its signed address",
    response_class=StreamingResponse,
    responses=DOWNLOADED,
)
async def read(
    file: Addressed, download: Annotated[Download, Depends(opened_by_address)]
) -> StreamingResponse:
    """Stream the file, or one range of it. It is always an attachment. Send no key."""
    return download.answer(file.path)


@router.put(
    "/content",
    summary="Write a file by its signed address",
    openapi_extra={"requestBody": {"required": False, "content": BYTES}},
    responses=UPLOADED,
)
async def write(
    request: Request,
    file: Addressed,
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
) -> FileEntryView:
    """Write the body, any bytes, as the file; the folders above it are made. Send no key.

    Until the address expires, it may be used again: each time, the file is replaced.
    """
    plain(request)
    written = await taken(
        request,
        lambda chunks: parts.using.write_file(caller, sandbox_id, file.path, chunks),
    )
    return FileEntryView.of(written)
