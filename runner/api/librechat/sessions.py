"""A session's files: the tenant's own files below `librechat/{session}/`.

LibreChat takes only ids of 21 letters as nanoid makes them. A session's is random; a file's is
computed from its name, so that it need not be stored.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from runner.store.files import StoredFile
from runner.store.transaction import Transaction
from runner.tenants import files
from runner.words.errors import NotFound

FOLDER = "librechat"
KEPT = timedelta(days=2)
"""LibreChat uploads a file again that is older than 23 hours."""
MOST = 1000
"""Files of a session."""
NO_FILE = "there is no such file, or it has expired: upload it again"
_LETTERS = 21
_ID = re.compile(rf"[A-Za-z0-9_-]{{{_LETTERS}}}")


@dataclass(frozen=True, slots=True)
class SessionFile:
    """A file of a session. `name` is its path below `/mnt/data`."""

    session: str
    stored: StoredFile

    @property
    def name(self) -> str:
        """Its name in the session."""
        return self.stored.path.removeprefix(folder(self.session))

    @property
    def id(self) -> str:
        """Its id in the session."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return base64.urlsafe_b64encode(digest).decode()[:_LETTERS]

    @property
    def suffix(self) -> str:
        """The end of its name, such as `.csv`."""
        return PurePosixPath(self.name).suffix


def new_session() -> str:
    """Return a new session's id: 126 random bits."""
    return secrets.token_urlsafe(_LETTERS)[:_LETTERS]


def folder(session: str) -> str:
    """Return what the names of a session's files begin with."""
    return f"{FOLDER}/{session}/"


def expiry() -> datetime:
    """Return when a file that is stored now is removed."""
    return datetime.now(UTC) + KEPT


async def of_session(tx: Transaction, session: str) -> Sequence[SessionFile]:
    """Return a session's files by name. Raises NotFound if there are none."""
    found: Sequence[StoredFile] = ()
    if _ID.fullmatch(session):
        found = await files.list_after(tx, prefix=folder(session), after="", limit=MOST)
    if not found:
        raise NotFound(NO_FILE)
    return [SessionFile(session, each) for each in found]


async def one(tx: Transaction, session: str, file_id: str) -> SessionFile:
    """Return a file of a session. Raises NotFound."""
    for each in await of_session(tx, session):
        if each.id == file_id:
            return each
    raise NotFound(NO_FILE)
