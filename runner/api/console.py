"""`/console`: the files of the consoles, as their build has left them in `console/dist`.

Everybody may read these files, because they say nothing about any tenant. What a console shows, it
asks of the API, with the session of whoever is logged in: a tenant's console asks `/v1`, and that
of operators, `/console/operator`, asks `/operator/v1`. If the files are missing, the API serves
everything else.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import structlog
from fastapi import APIRouter, Request, Response

from runner.words.errors import NotFound

PAGE = "index.html"
OPERATORS_PAGE = "operator.html"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""CSP 3 and Trusted Types. Scripts and styles are our own files, and no script can turn text into
HTML or into a script. Images may be `blob:`, because the console shows artifacts that way."""
FOR_EVER = "public, max-age=31536000, immutable"
"""RFC 8246: for files in whose names the build has put a hash of their content."""
ASK_FIRST = "no-cache"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
NOT_BUILT = "the console was not built on this host: run `make console`, and start the API again"
NO_OPERATORS = "this process has no operator's routes, so it has no console for operators"
NO_FILE = "the console has no such file: reload the page"


_HASHED = re.compile(r".*-[0-9A-Z]{8}\.[a-z]+")
_log = structlog.get_logger("runner.api")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the console."""

    content: bytes
    media_type: str
    cached: str

    def response(self, request: Request) -> Response:
        """Return the file, or 304 if the browser has it already."""
        etag = f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'
        headers = {
            "Content-Security-Policy": POLICY,
            "Cache-Control": self.cached,
            "ETag": etag,
        }
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def assets(folder: Path) -> Mapping[str, Asset]:
    """Return the console's files by name; none if it was not built, which the log then says."""
    if not (folder / PAGE).is_file():
        _log.warning("console_not_built", folder=str(folder), advice="make console")
        return {}
    return {
        path.name: Asset(
            path.read_bytes(),
            MEDIA_TYPES[path.suffix],
            FOR_EVER if _HASHED.fullmatch(path.name) else ASK_FIRST,
        )
        for path in folder.iterdir()
        if path.suffix in MEDIA_TYPES
    }


def router(found: Mapping[str, Asset], *, operators: bool) -> APIRouter:
    """Return the routes that serve these files, with the page of `operators` if they are served."""
    made = APIRouter(prefix="/console", include_in_schema=False)

    @made.get("")
    async def page(request: Request) -> Response:
        """Return the page. A browser does not send the part of the address behind `#`."""
        return _page(found, PAGE).response(request)

    @made.get("/operator")
    async def operators_page(request: Request) -> Response:
        """Return the page for operators."""
        if not operators:
            raise NotFound(NO_OPERATORS)
        return _page(found, OPERATORS_PAGE).response(request)

    @made.get("/{name}")
    async def file(request: Request, name: str) -> Response:
        """Return a file that the page loads."""
        if name not in found:
            raise NotFound(NO_FILE if found else NOT_BUILT)
        return found[name].response(request)

    return made


def _page(found: Mapping[str, Asset], name: str) -> Asset:
    if name not in found:
        raise NotFound(NOT_BUILT)
    return found[name]
