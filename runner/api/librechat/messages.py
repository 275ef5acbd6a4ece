"""LibreChat's requests, and the parts of the answers that it reads.

As in its description (`service/openapi.yml` of ClickHouse/code-interpreter), and as LibreChat's
server and `@librechat/agents` use it: these also read fields that the description lacks.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from runner.api.fields import FilePath, Text
from runner.api.librechat.sessions import SessionFile
from runner.api.requests import MAX_CODE, MAX_FILES
from runner.api.views import View

LANGUAGES: Mapping[str, str] = MappingProxyType(
    {"py": "python", "js": "javascript", "ts": "typescript", "bash": "bash"}
)
"""Our languages by LibreChat's names; it has more."""
MAX_ARGS = 100


def _offered(lang: str) -> str:
    if lang not in LANGUAGES:
        raise ValueError(f"{lang!r:.40} is not offered; choose one of {', '.join(LANGUAGES)}")
    return lang


class FileReference(BaseModel):
    """A file of an earlier upload or run. Newer clients call its session `storage_session_id`."""

    model_config = ConfigDict(strict=True, frozen=True)

    id: str
    name: FilePath
    storage_session_id: str | None = None
    session_id: str | None = None

    @property
    def session(self) -> str:
        """The session that it belongs to; empty if the client named none."""
        return self.storage_session_id or self.session_id or ""


class ExecRequest(BaseModel):
    """Code to run. Fields that are not here are ignored, such as whose code it is."""

    model_config = ConfigDict(strict=True, frozen=True)

    lang: Annotated[str, AfterValidator(_offered)]
    code: Annotated[Text, StringConstraints(min_length=1, max_length=MAX_CODE)]
    args: list[Text] = Field(default_factory=list, max_length=MAX_ARGS)
    files: list[FileReference] = Field(default_factory=list, max_length=MAX_FILES)
    timeout: int | None = Field(default=None, ge=1)
    """Milliseconds."""

    @property
    def language(self) -> str:
        """Our name of its language."""
        return LANGUAGES[self.lang]


class FileRef(View):
    """A file that a run left."""

    id: str
    name: str
    path: str
    session_id: str
    storage_session_id: str

    @classmethod
    def of(cls, file: SessionFile) -> Self:
        """Return the view of a file."""
        return cls(
            id=file.id,
            name=file.name,
            path=file.name,
            session_id=file.session,
            storage_session_id=file.session,
        )


class ExecAnswer(View):
    """The end of code."""

    session_id: str
    stdout: str
    stderr: str
    files: list[FileRef]


class UploadedFile(View):
    """A file that was stored. `fileId` is how LibreChat spells it."""

    status: str = "success"
    fileId: str  # noqa: N815 - their name
    filename: str


class Uploaded(View):
    """The files of one upload."""

    message: str = "success"
    session_id: str
    storage_session_id: str
    files: list[UploadedFile]
    succeeded: int
    failed: int = 0

    @classmethod
    def of(cls, session: str, files: list[SessionFile]) -> Self:
        """Return the view of an upload's files."""
        views = [UploadedFile(fileId=each.id, filename=each.name) for each in files]
        return cls(
            session_id=session, storage_session_id=session, files=views, succeeded=len(views)
        )


class FileObject(View):
    """A stored file. LibreChat looks for `{session}/{id}` at the beginning of `name`."""

    name: str
    id: str
    session_id: str
    size: int
    lastModified: str  # noqa: N815 - their name
    etag: str
    metadata: dict[str, str]
    contentType: str  # noqa: N815 - their name

    @classmethod
    def of(cls, file: SessionFile) -> Self:
        """Return the view of a file."""
        stored = file.stored
        return cls(
            name=f"{file.session}/{file.id}{file.suffix}",
            id=file.id,
            session_id=file.session,
            size=stored.size,
            lastModified=stored.updated_at.isoformat(),
            etag=stored.sha256,
            metadata={"content-type": stored.media_type, "original-filename": file.name},
            contentType=stored.media_type,
        )
