"""What a backup says about itself: what it holds, of which moment, signed by the deployment."""

import json
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from runner.base.signing import BadSignature, PublicKey, Signer, verify

KIND = "agent-runner/backup/v1"
MANIFEST = "manifest.json"
DUMP = "database.dump"
OBJECTS_INDEX = "objects.ndjson"
CHAINS = "chains.ndjson"
OBJECTS = "objects"
STATE = "state"


def _within(path: str) -> str:
    """Refuse a path that could lead out of the folder: a manifest may be a forger's."""
    parts = PurePosixPath(path).parts
    if not parts or path != "/".join(parts) or path.startswith("/") or ".." in parts:
        raise ValueError("not a path within the backup")
    return path


def _moment(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Moment = Annotated[str, AfterValidator(_moment)]
Inside = Annotated[str, AfterValidator(_within)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BackedFile(_Frozen):
    """A file of a backup. `sha256` is in hexadecimal digits."""

    path: Inside
    bytes: int = Field(ge=0)
    sha256: Hash


class BackedObject(_Frozen):
    """An object of a backup, as a line of the index."""

    key: Annotated[Inside, Field(pattern=rf"^tenants/{_UUID}/.")]
    bytes: int = Field(ge=0)
    sha256: Hash


class ChainEnd(_Frozen):
    """Where the audit chain of a tenant ended, as a line of the list of chains."""

    tenant: Annotated[str, Field(pattern=rf"^{_UUID}$")]
    seq: int = Field(gt=0)
    hash: Hash


class Contents(_Frozen):
    """How much the database held."""

    tenants: int
    executions: int
    waiting: int
    """Executions that had not ended."""
    sandboxes: int
    """Sandboxes that lived."""
    objects: int
    object_bytes: int
    lost: int
    """Objects that rows refer to and that were lost before the backup."""


class Manifest(_Frozen):
    """A backup's description of itself."""

    began_at: str
    of: Moment
    """The moment whose database it holds."""
    ended_at: str
    node: str
    """The host that made it, and whose state it holds."""
    release: str
    revision: str
    """The schema's revision."""
    owner: str
    """The role that owns the schema."""
    server: int
    """PostgreSQL's major version."""
    programs: int
    """The major version of the programs that made the dump: older ones do not read it."""
    contents: Contents
    files: tuple[BackedFile, ...]
    """All files except the manifest and the objects."""
    keys: tuple[BackedFile, ...] | None
    """The private keys, which are in another folder; None if they were left out."""

    @property
    def moment(self) -> datetime:
        """The moment whose database the backup holds."""
        return datetime.fromisoformat(self.of)


def sealed(signer: Signer, manifest: Manifest) -> str:
    """Return the signed text of a manifest."""
    return signer.sign(KIND, manifest.model_dump(mode="json"))


def opened(text: str, keys: tuple[PublicKey, ...]) -> Manifest:
    """Return what a signed text says. Raises BadSignature if none of the keys signed it."""
    body = verify(text, KIND, keys)
    try:
        # JSON knows no tuples, which strict models accept only from JSON.
        return Manifest.model_validate_json(json.dumps(body))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise BadSignature(f"not a manifest that this release reads: {where}") from None
