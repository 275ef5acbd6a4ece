"""The deployment's signature: Ed25519 over canonical JSON, by a key that never leaves the host.

A signed text says what kind of document it is, and the signature covers that, so one kind cannot be
passed off as another. A rotation deletes the old private key. The old public keys stay, so that
documents signed before can still be verified.

Private keys are in `keys/` of the state folder. The public keys that this host trusts are apart, in
`trusted-keys/`, so that the API can read them without access to a private one. The database never
says which keys to trust: whoever can write to it could add a key of their own.
"""

import base64
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from runner.words.errors import SetupError
from runner.words.json import read_json

_ID_DIGITS = 16
_FIELDS = {"type", "body", "key", "signature"}


class BadSignature(Exception):
    """The text is not a document of this kind, unchanged, with a signature by one of these keys."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies. `id` is the beginning of the SHA-256 of its raw bytes."""

    id: str
    pem: str


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs with the deployment's newest key."""

    key_id: str
    public_keys: tuple[PublicKey, ...]
    """The keys that were trusted when the signer was opened."""
    _key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def open(cls, state_dir: Path) -> "Signer":
        """Return the signer of this deployment; make its first key if there is none.

        Raises SetupError if the keys cannot be read.
        """
        folder = _folder(state_dir)
        with _alone(folder):
            _adopt(folder, TrustedKeys(state_dir))
            if not _private_keys(folder):
                _make_key(state_dir)
            path = _private_keys(folder)[-1]
        try:
            loaded = serialization.load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError) as error:
            raise SetupError(f"{path} is not a signing key: {error}") from error
        if not isinstance(loaded, Ed25519PrivateKey):
            raise SetupError(f"{path} is not an Ed25519 key")
        trusted = TrustedKeys(state_dir)
        trusted.add(_public_pem(loaded.public_key()))
        return cls(_key_id(loaded.public_key()), trusted.read(), loaded)

    def sign(self, kind: str, body: Mapping[str, Any]) -> str:
        """Return the body as a signed text of this kind, one line of canonical JSON."""
        # The signature covers the text without itself. Canonical JSON sorts by name, which puts it
        # between these two parts, so the body is written only once.
        before = rfc8785.dumps({"body": dict(body), "key": self.key_id})[:-1]
        after = rfc8785.dumps({"type": kind})[1:]
        signature = base64.b64encode(self._key.sign(before + b"," + after))
        return b"".join((before, b',"signature":"', signature, b'",', after)).decode()


def rotate(state_dir: Path) -> PublicKey:
    """Make a new key, which signs from the next start on, and delete the older private ones."""
    folder = _folder(state_dir)
    with _alone(folder):
        _adopt(folder, TrustedKeys(state_dir))
        before = _private_keys(folder)
        made = _make_key(state_dir)
        for path in before:
            path.unlink()
    return made


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The public keys that this host trusts: its own, and those that an operator added."""

    state_dir: Path

    @property
    def folder(self) -> Path:
        """The folder that holds them, one file each."""
        return self.state_dir / "trusted-keys"

    def read(self) -> tuple[PublicKey, ...]:
        """Return the keys as they are now. Raises SetupError for a file that holds none."""
        found = []
        for path in sorted(self.folder.glob("*.pub")):
            try:
                found.append(read_public_key(path.read_text()))
            except (OSError, ValueError) as error:
                raise SetupError(f"{path} is not a public key: {error}") from error
        return tuple(found)

    def add(self, pem: str) -> PublicKey:
        """Trust the key in this text from now on. Raises ValueError if there is none."""
        key = read_public_key(pem)
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = self.folder / f"{key.id}.pub"
        if not path.exists():
            replace_file(path, key.pem.encode(), 0o644)
        return key


def read_public_key(pem: str) -> PublicKey:
    """Return the public key in this text. Raises ValueError if it holds none of Ed25519."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")  # noqa: TRY004 - of the text, not of the argument
    return PublicKey(_key_id(key), _public_pem(key))


def verify(text: str, kind: str, keys: tuple[PublicKey, ...]) -> dict[str, Any]:
    """Return the body of a text signed by one of these keys. Raises BadSignature."""
    try:
        document = read_json(text)
    except (ValueError, RecursionError) as error:
        raise BadSignature(f"not JSON: {error}") from None
    if not isinstance(document, dict) or set(document) != _FIELDS:
        raise BadSignature(f"not a signed document: it needs {', '.join(sorted(_FIELDS))}")
    if document["type"] != kind or not isinstance(document["body"], dict):
        raise BadSignature(f"not of type {kind}")
    key = next((key for key in keys if key.id == document["key"]), None)
    if key is None:
        raise BadSignature(f"signed by key {document['key']!r:.40}, which is not trusted here")
    signature = _signature(document.pop("signature"))
    public = serialization.load_pem_public_key(key.pem.encode())
    try:
        if not isinstance(public, Ed25519PublicKey):
            raise BadSignature("the known key is not an Ed25519 key")
        public.verify(signature, rfc8785.dumps(document))
    except (InvalidSignature, ValueError, RecursionError, rfc8785.CanonicalizationError):
        raise BadSignature("the signature does not fit: something was changed") from None
    body: dict[str, Any] = document["body"]
    return body


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is complete once it has its name, and stays so when the power fails."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    Path(draft).rename(path)


def _signature(text: object) -> bytes:
    """Return the bytes of a signature, which may be written in only one way (RFC 4648 3.5)."""
    try:
        found = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        found = b""
    if not found or base64.b64encode(found).decode() != text:
        raise BadSignature("the signature is not canonical base64")
    return found


def _folder(state_dir: Path) -> Path:
    folder = state_dir / "keys"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _private_keys(folder: Path) -> list[Path]:
    return sorted(folder.glob("signing-*.pem"))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from making or forgetting keys meanwhile: two may start at once."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _adopt(folder: Path, trusted: TrustedKeys) -> None:
    """Move public keys from where releases up to 0.1 kept them."""
    for path in folder.glob("*.pub"):
        trusted.add(path.read_text())
        path.unlink()


def _make_key(state_dir: Path) -> PublicKey:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    # Store the public half first, so that every signature can be verified.
    public = TrustedKeys(state_dir).add(_public_pem(key.public_key()))
    name = f"signing-{datetime.now(UTC):%Y%m%d%H%M%S%f}.pem"
    replace_file(_folder(state_dir) / name, private, 0o600)
    return public


def _public_pem(key: Ed25519PublicKey) -> str:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:_ID_DIGITS]
