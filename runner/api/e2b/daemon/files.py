"""`/files`: one file out of a sandbox, or some files into it, as E2B's clients ask.

Bytes are passed on as they come. A path is relative to the user's home.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute

from runner.api import downloads
from runner.api.counting import Surcharge, count
from runner.api.deps import Parts
from runner.api.downloads import Download
from runner.api.e2b.daemon import answers
from runner.api.e2b.daemon.coding import GZIP, Undecodable, packed, unpacked
from runner.api.e2b.daemon.connect import STATUS, Code, ConnectError
from runner.api.e2b.daemon.failures import file_status
from runner.api.e2b.daemon.messages import MAX_PATH, resolved
from runner.api.e2b.daemon.multipart import Malformed, Multipart, boundary
from runner.api.e2b.daemon.tree import Tree
from runner.api.e2b.daemon.users import require_user
from runner.api.e2b.inside import InSandbox, Inside
from runner.api.e2b.shape import refusal
from runner.api.edge.groups import Group
from runner.api.edge.rates import BYTES_FOR_ONE
from runner.api.edge.routing import Body
from runner.api.representation import MAX_HEADER
from runner.api.uploads import BYTES, UNKNOWN, taken
from runner.words.errors import FileRefused
from runner.words.living import FileEntry

METADATA = "x-metadata-"
FIELD = "file"


class FilesRoute(APIRoute):
    """A route whose failures have the statuses that E2B's clients tell apart."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with these failures."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except FileRefused as error:
                return refusal(request, file_status(error), error.detail)
            except ConnectError as error:
                return refusal(request, STATUS[error.code], error.message)
            except (Malformed, Undecodable) as error:
                return refusal(request, HTTPStatus.BAD_REQUEST, str(error))

        return handle


router = APIRouter(tags=["e2b"], route_class=FilesRoute)

Path = Annotated[
    str | None,
    Query(max_length=MAX_PATH, pattern=r"^[^\x00]*$", description="Relative to the user's home."),
]
User = Annotated[
    str | None, Query(max_length=64, description="The sandbox's own; no other is there.")
]
Signature = Annotated[
    str | None,
    Query(max_length=64, description="Permits this path alone, in place of a token."),
]
Expiration = Annotated[
    str | None, Query(max_length=16, description="Until when the signature holds.")
]


async def opened(
    inside: InSandbox,
    parts: Parts,
    path: Path = None,
    username: User = None,
    _signature: Annotated[Signature, Query(alias="signature")] = None,
    _expiration: Annotated[Expiration, Query(alias="signature_expiration")] = None,
    range_: Annotated[str | None, Header(alias="Range", max_length=MAX_HEADER)] = None,
) -> AsyncIterator[Download]:
    """Open the file before the answer begins, and close it whichever way the answer ends."""
    require_user(username, inside)
    path = permitted(inside, path)
    read = partial(parts.using.read_file, inside.caller, inside.sandbox_id, resolved(path or ""))
    async with downloads.opened(read, range_) as download:
        yield download


@router.get(
    "/files",
    summary="Read a file (E2B)",
    response_class=StreamingResponse,
    responses={200: {"description": "The file's bytes.", "content": BYTES}},
)
async def read_file(
    request: Request, download: Annotated[Download, Depends(opened)], path: Path = None
) -> StreamingResponse:
    """Stream a file, or one range of it.

    A client that accepts gzip and nothing else gets gzip: one that accepts other codings, too, has
    not asked for it, and packing is work.
    """
    wanted = request.headers.get("accept-encoding", "").strip().lower()
    if wanted == GZIP and download.part is None:
        answer = download.answer(path or "", coded=packed, coding=GZIP)
    else:
        answer = download.answer(path or "")
    answer.headers["Vary"] = "Accept-Encoding"
    return answer


@router.post(
    "/files",
    summary="Write files (E2B)",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                **BYTES,
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {FIELD: {"type": "string", "format": "binary"}},
                    }
                },
            },
        }
    },
)
async def write_files(
    request: Request,
    inside: InSandbox,
    parts: Parts,
    path: Path = None,
    username: User = None,
    _signature: Annotated[Signature, Query(alias="signature")] = None,
    _expiration: Annotated[Expiration, Query(alias="signature_expiration")] = None,
) -> list[dict[str, Any]]:
    """Write the body as one file, or each of its parts named `file` as one.

    A part's file name is its path, unless the request has a `path`. Folders above are made. Readers
    see the old file or the whole new one; of several files, those before a failure stay written.
    Each file costs as much as a request with that file alone.
    """
    require_user(username, inside)
    path = permitted(inside, path)
    if any(name.startswith(METADATA) for name in request.headers):
        raise ConnectError(
            Code.UNIMPLEMENTED, "metadata of files is not supported: leave out X-Metadata-*"
        )
    charge = partial(count, parts, inside.caller, Group.USE)
    most = parts.settings.max_file_mb * 2**20
    upload = _Upload(Tree(parts.using, inside), path, most, charge)
    written = await taken(request, partial(upload.of, request))
    return [dict(answers.written(each)) for each in written]


def permitted(inside: Inside, path: str | None) -> str | None:
    """Return the path of a request's query; by a signed address, the one that was signed.

    Raises ConnectError for an address that was signed for no path: parts of its body would say
    themselves where they are written.
    """
    if inside.path is None:
        return path
    if not inside.path:
        raise ConnectError(
            Code.INVALID_ARGUMENT, "this address is signed for no path: sign one for each file"
        )
    return inside.path


class _Upload:
    """The files of one request, on their way in."""

    def __init__(
        self,
        tree: Tree,
        path: str | None,
        most: int,
        charge: Callable[[int], Awaitable[None]],
    ) -> None:
        self._tree = tree
        self._path = path
        self._most = most
        self._charge = charge

    async def of(self, request: Request, body: AsyncIterator[bytes]) -> list[FileEntry]:
        """Write the files of a body. Raises ConnectError, FileRefused, Malformed, Undecodable."""
        coding = request.headers.get("content-encoding", "identity").lower()
        if coding == GZIP:
            surcharge = Surcharge(self._charge, BYTES_FOR_ONE[Body.STREAMED])
            body = unpacked(body, self._most, surcharge.add)
        elif coding not in {"", "identity"}:
            raise ConnectError(Code.UNIMPLEMENTED, f"the coding {coding!r:.40} is not supported")
        content_type = request.headers.get("content-type", "")
        if (mark := boundary(content_type)) is not None:
            return await self._each(Multipart(mark, body))
        if content_type.partition(";")[0].strip().lower() != UNKNOWN:
            raise ConnectError(
                Code.INVALID_ARGUMENT, f"send multipart/form-data or {UNKNOWN}, with its type"
            )
        if not self._path:
            raise ConnectError(Code.INVALID_ARGUMENT, "`path` must name the file")
        return [await self._tree.write(resolved(self._path), body)]

    async def _each(self, multipart: Multipart) -> list[FileEntry]:
        """Write each part."""
        written: dict[str, FileEntry] = {}
        async for part in multipart.parts():
            if part.name != FIELD:
                continue
            path = self._path or part.filename
            if not path or len(path) > MAX_PATH or "\0" in path:
                raise ConnectError(
                    Code.INVALID_ARGUMENT, f"a file needs a path of at most {MAX_PATH} characters"
                )
            path = resolved(path)
            if path in written:
                raise ConnectError(
                    Code.INVALID_ARGUMENT,
                    f"{path}: this request has written this file already; written so far: "
                    f"{', '.join(list(written)[:10])}",
                )
            if written:
                # The request itself has paid for the first.
                await self._charge(1)
            written[path] = await self._tree.write(path, part.chunks)
        return list(written.values())
