"""LibreChat's files on their way in: parts of a form, each stored as it comes."""

from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus

from fastapi import HTTPException, Request

from runner.api.counting import count
from runner.api.deps import Dependencies
from runner.api.e2b.daemon.multipart import FormPart, Malformed, Multipart, boundary
from runner.api.edge.groups import Group
from runner.api.edge.routing import declared_length
from runner.api.librechat.sessions import SessionFile, expiry, folder, new_session
from runner.api.uploads import UNKNOWN, plain, received
from runner.auth.caller import Caller
from runner.store.files import ALWAYS
from runner.tenants import files
from runner.tenants.files import Upload
from runner.words.paths import file_path

FIELD = "file"


class Uploading:
    """The files of one request, which become those of a new session."""

    def __init__(self, parts: Dependencies, caller: Caller, request: Request) -> None:
        self._parts = parts
        self._caller = caller
        plain(request)
        self._type = request.headers.get("content-type", "")
        # How long one part is shows at its end: it reserves what it may be at most.
        most = parts.settings.max_file_mb * 2**20
        self._most = min(most, declared_length(request.scope) or most)
        self.session = new_session()

    async def all_of(self, body: AsyncIterator[bytes]) -> list[SessionFile]:
        """Store each file of a form. Raises HTTPException if the body is none, or has no file.

        Files before a failure stay; nobody learns their session, and they expire.
        """
        try:
            if (mark := boundary(self._type)) is None:
                raise HTTPException(HTTPStatus.BAD_REQUEST, "send multipart/form-data")
            stored = list[SessionFile]()
            async for part in Multipart(mark, body).parts():
                if part.filename is None or not part.name.startswith(FIELD):
                    continue
                if stored:
                    # The request itself has paid for the first.
                    await count(self._parts, self._caller, Group.WRITE)
                stored.append(await self._one(part))
        except Malformed as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from None
        if not stored:
            raise HTTPException(
                HTTPStatus.BAD_REQUEST, f"the form has no file: name its field {FIELD!r}"
            )
        return stored

    async def _one(self, part: FormPart) -> SessionFile:
        name = part.filename or ""
        try:
            path = file_path(folder(self.session) + name)
        except ValueError as error:
            raise Malformed(f"the file name {name!r:.80} {error}") from None
        upload = Upload(path, self._most, UNKNOWN, expiry(), ALWAYS)
        receive = partial(received, self._parts.objects, part.chunks, ())
        stored = await files.write(self._parts.database, self._caller, upload, receive)
        return SessionFile(self.session, stored)
