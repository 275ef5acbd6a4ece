"""Files of sandboxes on their way out: the whole of one or a range of its bytes."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from fastapi import HTTPException
from fastapi.responses import StreamingResponse

from runner.api import representation
from runner.api.representation import Unsatisfiable
from runner.api.uploads import UNKNOWN
from runner.door.streams import FileStream
from runner.words.text import counted


class Reading(Protocol):
    """Opens a certain file, or a part of it."""

    def __call__(
        self, *, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[FileStream]:
        """Open it for a context."""


@dataclass(frozen=True, slots=True)
class Download:
    """An open file in a sandbox, and the part of it that is asked for."""

    stream: FileStream
    part: representation.Span | None

    @property
    def length(self) -> int:
        """How many bytes are sent."""
        return self.stream.file.size if self.part is None else self.part.end - self.part.start

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield `length` bytes, however much longer the file has become."""
        left = self.length
        async for chunk in self.stream.chunks():
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    def answer(
        self,
        path: str,
        *,
        coded: Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]] | None = None,
        coding: str | None = None,
    ) -> StreamingResponse:
        """Return the answer. It is always an attachment, which browsers do not display.

        `coded` applies a `coding` to the bytes, whose length is then not known before their end.
        """
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Disposition": representation.attachment(path),
            # Whatever a program calls HTML, a browser must not run it on our origin.
            "Content-Security-Policy": "sandbox; default-src 'none'",
        }
        chunks, status = self.chunks(), HTTPStatus.OK
        if coded is not None and coding is not None:
            headers["Content-Encoding"] = coding
            chunks = coded(chunks)
        else:
            headers["Content-Length"] = str(self.length)
        if self.part is not None:
            status = HTTPStatus.PARTIAL_CONTENT
            size = self.stream.file.size
            headers["Content-Range"] = f"bytes {self.part.start}-{self.part.end - 1}/{size}"
        return StreamingResponse(chunks, status, headers=headers, media_type=UNKNOWN)


@asynccontextmanager
async def opened(read: Reading, range_: str | None) -> AsyncIterator[Download]:
    """Open a file for a context, and find out which part of it is asked for.

    Raises HTTPException for a range that the file does not have.
    """
    part = None
    if range_ is not None:
        async with read(length=0) as looked:
            size = looked.file.size
        try:
            part = representation.span(range_, size)
        except Unsatisfiable:
            raise HTTPException(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                f"the file has {counted(size, 'byte')}",
                {"Content-Range": f"bytes */{size}"},
            ) from None
    offset, length = (0, None) if part is None else (part.start, part.end - part.start)
    async with read(offset=offset, length=length) as stream:
        yield Download(stream, part)
