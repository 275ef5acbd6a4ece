"""`/v1/files`: a tenant's own files, streamed in and out."""

from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, Field

from runner.api import cursors, representation
from runner.api.deps import Allow, Parts
from runner.api.fields import FilePrefix
from runner.api.problems import problem, responses
from runner.api.representation import MAX_HEADER, Unsatisfiable
from runner.api.stored import begun
from runner.api.uploads import BYTES, UNKNOWN, plain, received
from runner.api.views import View
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.store.files import StoredFile
from runner.tenants import files
from runner.tenants.files import Upload
from runner.words.paths import MAX_BYTES, file_path
from runner.words.text import counted

router = APIRouter(prefix="/v1/files", tags=["files"])

CanReadFiles = Annotated[Caller, Depends(Allow(Permission.FILE_READ))]
CanWriteFiles = Annotated[Caller, Depends(Allow(Permission.FILE_WRITE))]
CanDeleteFiles = Annotated[Caller, Depends(Allow(Permission.FILE_DELETE))]

FilePath = Annotated[
    str,
    Path(
        max_length=MAX_BYTES,
        description="The file's name: a relative path. It is kept byte for byte. Refused are "
        "control characters, and parts that are empty, `.` or `..`.",
        examples=["data/in.csv"],
    ),
    AfterValidator(file_path),
]
HeaderText = Annotated[str | None, Header(max_length=MAX_HEADER)]
MediaType = Annotated[
    str,
    Header(
        alias="Content-Type", max_length=255, pattern=r"^[\x20-\x7e]+$", include_in_schema=False
    ),
]


class FileView(View):
    """A stored file."""

    path: str = Field(examples=["data/in.csv"])
    size: int = Field(description="Bytes.")
    sha256: str
    etag: str = Field(description="For `If-Match`; changes only when the content changes.")
    media_type: str = Field(
        description="As given at upload. Downloads are always `application/octet-stream`."
    )
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None

    @classmethod
    def of(cls, stored: StoredFile) -> Self:
        """Return the view of a file."""
        return cls(
            path=stored.path,
            size=stored.size,
            sha256=stored.sha256,
            etag=representation.etag(stored.sha256),
            media_type=stored.media_type,
            created_at=stored.created_at,
            updated_at=stored.updated_at,
            expires_at=stored.expires_at,
        )


class FilePage(View):
    """Files by name."""

    items: list[FileView]
    next_cursor: str | None


@router.get("", summary="List files", responses=responses())
async def list_files(
    caller: CanReadFiles,
    parts: Parts,
    prefix: Annotated[
        FilePrefix, Query(description="Only files whose names begin with this.")
    ] = "",
    cursor: Annotated[str | None, Query(max_length=cursors.MAX_PATH_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> FilePage:
    """Return this tenant's files by name."""
    after = cursors.decode_path(cursor)
    async with parts.database.tenant(caller.tenant_id) as tx:
        found = await files.list_after(tx, prefix=prefix, after=after, limit=limit + 1)
    page, next_cursor = cursors.page(found, limit, lambda each: each.path)
    return FilePage(
        items=[FileView.of(each) for each in page],
        next_cursor=next_cursor,
    )


@router.put(
    "/{path:path}",
    summary="Write a file",
    openapi_extra={"requestBody": {"required": True, "content": BYTES}},
    responses={
        200: {"description": "It replaced a file of that name."},
        201: {"model": FileView, "description": "It is a new file."},
        **responses(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.CONFLICT,
            HTTPStatus.LENGTH_REQUIRED,
            HTTPStatus.PRECONDITION_FAILED,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        ),
    },
)
async def write(
    request: Request,
    response: Response,
    path: FilePath,
    caller: CanWriteFiles,
    parts: Parts,
    expires_at: Annotated[
        cursors.Moment | None, Query(description="When to remove the file; by default never.")
    ] = None,
    if_match: HeaderText = None,
    if_none_match: HeaderText = None,
    content_digest: HeaderText = None,
    repr_digest: HeaderText = None,
    digest: HeaderText = None,
    media_type: MediaType = UNKNOWN,
) -> FileView:
    """Store the body under a name. Readers see the earlier file or the whole new one.

    Its length must be declared, and is reserved of the tenant's storage before a byte is read. A
    `Content-Digest` (RFC 9530) with `sha-256` is checked. `If-None-Match: *` refuses to overwrite,
    `If-Match` to overwrite anything but that content.
    """
    plain(request)
    upload = Upload(
        path=path,
        size=int(request.headers["content-length"]),
        media_type=media_type,
        expires_at=cursors.in_range(expires_at),
        condition=representation.condition(if_match, if_none_match),
    )
    promised = [
        sum_ for name, given in (
            ("content-digest", content_digest), ("repr-digest", repr_digest),
            ("digest", digest),
        ) if (sum_ := representation.expected(name, given)) is not None
    ]  # fmt: skip
    receive = partial(received, parts.objects, request.stream(), promised)
    stored = await files.write(parts.database, caller, upload, receive)
    created = stored.created_at == stored.updated_at
    response.status_code = HTTPStatus.CREATED if created else HTTPStatus.OK
    response.headers["ETag"] = representation.etag(stored.sha256)
    return FileView.of(stored)


@router.get(
    "/{path:path}",
    summary="Read a file",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The file's bytes.", "content": BYTES},
        206: {"description": "The requested range of the bytes.", "content": BYTES},
        304: {"description": "It is still the one that `If-None-Match` names."},
        **responses(HTTPStatus.NOT_FOUND, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
    },
)
async def read(
    request: Request,
    path: FilePath,
    caller: CanReadFiles,
    parts: Parts,
    range_: Annotated[str | None, Header(alias="Range", max_length=MAX_HEADER)] = None,
    if_range: HeaderText = None,
    if_none_match: HeaderText = None,
) -> Response:
    """Stream a file or one range of it. It is always an attachment, which browsers do not display.

    `Repr-Digest` is of the whole file, `Content-Digest` of what is sent (RFC 9530).
    """
    async with parts.database.tenant(caller.tenant_id) as tx:
        found = await files.read(tx, caller, path)
    tag = representation.etag(found.sha256)
    headers = _headers(found)
    if if_none_match is not None and _is_among(found, if_none_match):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
    try:
        asked = range_ if if_range is None or if_range.strip() == tag else None
        part = representation.span(asked, found.size)
    except Unsatisfiable:
        return problem(
            request,
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"the file has {counted(found.size, 'byte')}",
            headers={"Content-Range": f"bytes */{found.size}"},
        )
    if part is None:
        return StreamingResponse(
            await begun(parts.objects.read(found.object_key)),
            media_type=UNKNOWN,
            headers={
                **headers,
                "Content-Length": str(found.size),
                "Content-Digest": headers["Repr-Digest"],
            },
        )
    return StreamingResponse(
        await begun(parts.objects.read(found.object_key, part.start, part.end)),
        HTTPStatus.PARTIAL_CONTENT,
        media_type=UNKNOWN,
        headers={
            **headers,
            "Content-Length": str(part.end - part.start),
            "Content-Range": f"bytes {part.start}-{part.end - 1}/{found.size}",
        },
    )


@router.head(
    "/{path:path}",
    summary="Read a file's headers",
    responses={
        200: {"description": "The headers of a download, without the bytes.", "content": BYTES},
        **responses(HTTPStatus.NOT_FOUND),
    },
)
async def head(path: FilePath, caller: CanReadFiles, parts: Parts) -> Response:
    """Return the headers of a file. Its content stays unread, so no record is made."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        found = await files.look(tx, path)
    headers = {**_headers(found), "Content-Length": str(found.size)}
    return Response(media_type=UNKNOWN, headers=headers)


@router.delete(
    "/{path:path}",
    summary="Delete a file",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED),
)
async def delete(
    path: FilePath,
    caller: CanDeleteFiles,
    parts: Parts,
    if_match: HeaderText = None,
) -> None:
    """Delete a file. Executions that were submitted with it still get it."""
    condition = representation.condition(if_match, None)
    async with parts.database.tenant(caller.tenant_id) as tx:
        await files.delete(tx, caller, path, condition)


def _headers(found: StoredFile) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Content-Disposition": representation.attachment(found.path),
        # A browser must not run on our origin what somebody calls HTML.
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "ETag": representation.etag(found.sha256),
        "Repr-Digest": representation.digest(found.sha256),
    }


def _is_among(found: StoredFile, header: str) -> bool:
    # RFC 9110, 13.1.2: this comparison is weak.
    listed = representation.tags(header.replace("W/", ""), "if-none-match")
    return not listed or found.sha256 in listed
