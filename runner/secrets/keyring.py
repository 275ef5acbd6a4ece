"""Key-encryption keys, which wrap the tenants' data keys.

A key ring is text: keys of 32 bytes in base64. The first one wraps, all of them unwrap. The ring
comes from the environment or from a file. The file is read at each use, which costs microseconds.
So no process has to restart when `runner secrets rotate` puts a new key in front.
"""

import base64
import binascii
import fcntl
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runner.base.settings import Settings
from runner.secrets.envelope import KEY_BYTES, Unopened, new_key, seal, unseal
from runner.words.errors import KeyUnavailable, SetupError

_ID_DIGITS = 16
_DERIVED = b"agent-runner/derived\0"
NO_KEY = "this deployment has no key for secrets: set RUNNER_SECRETS_KEY or RUNNER_SECRETS_KEY_FILE"


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A data key, wrapped with the key-encryption key of that id."""

    kek_id: str
    sealed: bytes


class KeyEncryption(Protocol):
    """Wraps and unwraps data keys: a key ring here, or a KMS."""

    async def current(self) -> str:
        """Return the id of the key that wraps. Raises KeyUnavailable."""

    async def wrap(self, key: bytes, *, bound_to: bytes) -> Wrapped:
        """Return the data key, wrapped. Raises KeyUnavailable."""

    async def unwrap(self, wrapped: Wrapped, *, bound_to: bytes) -> bytes:
        """Return the data key. Raises KeyUnavailable if the key that wrapped it is missing."""


class Derivation(Protocol):
    """Gives keys for purposes other than wrapping: they reveal nothing of the ring's keys."""

    def derive(self, purpose: bytes) -> tuple[bytes, ...]:
        """Return a key of 32 bytes for each in the ring, the one to use first.

        What was made with the others stays valid until their keys are retired. Raises
        KeyUnavailable.
        """


class KeyRing:
    """A key ring in this process."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Take keys by their ids; the one that wraps is first."""
        self._keys = keys

    @classmethod
    def parse(cls, text: str, origin: str) -> "KeyRing":
        """Return the ring in a text. Raises KeyUnavailable, which quotes nothing from the text."""
        found = {}
        for word in text.split():
            try:
                key = base64.b64decode(word, validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if len(key) != KEY_BYTES:
                raise KeyUnavailable(
                    f"{origin} holds something else than base64 of {KEY_BYTES} bytes"
                )
            found[key_id(key)] = key
        if not found:
            raise KeyUnavailable(f"{origin} holds no key")
        return cls(found)

    @property
    def keys(self) -> Mapping[str, bytes]:
        """The keys by their ids; the one that wraps is first."""
        return self._keys

    def text(self) -> str:
        """Return the ring as `parse` reads it: secret."""
        return _written(self._keys.values())

    def derive(self, purpose: bytes) -> tuple[bytes, ...]:
        """Return a key for another purpose for each in the ring (HMAC-SHA256, RFC 2104)."""
        text = _DERIVED + purpose
        return tuple(hmac.digest(key, text, hashlib.sha256) for key in self._keys.values())

    async def current(self) -> str:
        """Return the id of the key that wraps."""
        return next(iter(self._keys))

    async def wrap(self, key: bytes, *, bound_to: bytes) -> Wrapped:
        """Return the data key, wrapped."""
        id_, kek = next(iter(self._keys.items()))
        return Wrapped(id_, seal(kek, key, bound_to=bound_to))

    async def unwrap(self, wrapped: Wrapped, *, bound_to: bytes) -> bytes:
        """Return the data key. Raises KeyUnavailable if the key that wrapped it is missing."""
        kek = self._keys.get(wrapped.kek_id)
        if kek is None:
            raise KeyUnavailable(
                f"the key {wrapped.kek_id} that secrets are under is not in the ring"
            )
        try:
            return unseal(kek, wrapped.sealed, bound_to=bound_to)
        except Unopened:
            raise KeyUnavailable(
                "a tenant's data key does not open: the database was changed"
            ) from None


class KeyFile:
    """A key ring in a file, read at each use."""

    def __init__(self, path: Path) -> None:
        """Check the file, if there is one. Raises SetupError if it is no ring, or not private."""
        self._path = path
        if path.exists():
            try:
                self.ring()
            except KeyUnavailable as error:
                raise SetupError(error.detail) from None

    def ring(self) -> KeyRing:
        """Return the ring as it is now.

        Raises KeyUnavailable if there is no such file, others may read it, or it is not a ring.
        """
        try:
            text = self._path.read_text("ascii")
            mode = stat.S_IMODE(self._path.stat().st_mode)
        except FileNotFoundError:
            raise KeyUnavailable(NO_KEY) from None
        except (OSError, UnicodeDecodeError):
            raise KeyUnavailable(f"{self._path} cannot be read as a key ring") from None
        if mode & 0o077:
            raise KeyUnavailable(f"{self._path} may be read by others: `chmod 600 {self._path}`")
        return KeyRing.parse(text, str(self._path))

    def derive(self, purpose: bytes) -> tuple[bytes, ...]:
        """Return a key for another purpose for each in the ring. Raises KeyUnavailable."""
        return self.ring().derive(purpose)

    async def current(self) -> str:
        """Return the id of the key that wraps. Raises KeyUnavailable."""
        return await self.ring().current()

    async def wrap(self, key: bytes, *, bound_to: bytes) -> Wrapped:
        """Return the data key, wrapped. Raises KeyUnavailable."""
        return await self.ring().wrap(key, bound_to=bound_to)

    async def unwrap(self, wrapped: Wrapped, *, bound_to: bytes) -> bytes:
        """Return the data key. Raises KeyUnavailable."""
        return await self.ring().unwrap(wrapped, bound_to=bound_to)

    def make(self) -> None:
        """Write a ring of one new key, unless there is a ring: if two try at once, one is kept."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._draft([new_key()])
        try:
            os.link(draft, self._path)
        except FileExistsError:
            return
        finally:
            draft.unlink()

    @contextmanager
    def rotating(self) -> Iterator[None]:
        """Wait for other rotations of this file: two at once could lose each other's key."""
        with self._path.with_name(f".{self._path.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def add(self) -> str:
        """Put a new key in front of the ring, and return its id; the other keys still unwrap."""
        made = new_key()
        self._draft([made, *self.ring().keys.values()]).replace(self._path)
        return key_id(made)

    def retire(self, in_use: Collection[str]) -> list[str]:
        """Remove keys that wrap nothing, and return their ids.

        The newest two stay. A process may have read the ring before the first of them was in it,
        and be wrapping with the second right now. The next rotation removes that one.
        """
        keys = self.ring().keys
        newest = list(keys)[:2]
        kept = {id_: key for id_, key in keys.items() if id_ in newest or id_ in in_use}
        self._draft(list(kept.values())).replace(self._path)
        return [id_ for id_ in keys if id_ not in kept]

    def _draft(self, keys: list[bytes]) -> Path:
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(6)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(_written(keys))
            file.flush()
            os.fsync(file.fileno())
            with suppress(FileNotFoundError):
                # Whoever can read the ring now must be able to read the next one.
                before = self._path.stat()
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
        return draft


def _written(keys: Iterable[bytes]) -> str:
    return "".join(base64.b64encode(key).decode() + "\n" for key in keys)


def key_id(key: bytes) -> str:
    """Return the name of a key: the beginning of a hash, which reveals nothing of the key."""
    return hashlib.sha256(b"agent-runner/kek\0" + key).hexdigest()[:_ID_DIGITS]


def open_keys(settings: Settings) -> KeyRing | KeyFile:
    """Return this process's keys. Raises SetupError if the configured ones are not a key ring."""
    if settings.secrets_key is None:
        if settings.secrets_key_file is None:
            return KeyFile(settings.secrets_key_path)
        if not settings.secrets_key_file.exists():
            raise SetupError(f"RUNNER_SECRETS_KEY_FILE: there is no {settings.secrets_key_file}")
        try:
            return KeyFile(settings.secrets_key_file)
        except SetupError as error:
            raise SetupError(f"RUNNER_SECRETS_KEY_FILE: {error.detail}") from error
    try:
        return KeyRing.parse(settings.secrets_key.get_secret_value(), "RUNNER_SECRETS_KEY")
    except KeyUnavailable as error:
        raise SetupError(error.detail) from None
