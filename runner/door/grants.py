"""Grants: permission to knock at a node's door, for one call.

A grant names the tenant, the sandbox, the one call that it is good for, its expiry and the caller.
The API makes it right before it knocks, after it has checked the caller's permission. It signs the
bytes as they are sent, and the node checks the signature before it parses them. On one host, both
have a key that nobody else has (HMAC-SHA256, RFC 2104). Between hosts, the API signs with the key
of its door's certificate (Ed25519, RFC 8032), for one node.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, TypeAdapter, ValidationError, with_config

from runner.base.signing import replace_file
from runner.protocol.codec import STRICT
from runner.words.errors import NodeAway, NotPermitted, SetupError
from runner.words.json import read_json
from runner.words.trace import TracePlace

KEY_FILE: Final = "key"
GOOD_FOR_S = 10.0
"""How long a grant is good for, unless its host is slow: it is used at once, and one host's clock
decides."""
MOST_S = 30.0
"""How far ahead its expiry may lie: no grant is good for longer, whoever made it, unless its host
is slow."""
LONGEST = 4096
_KEY_BYTES = 32
_TEXT = 256


@dataclass(frozen=True, slots=True)
class Knock:
    """Whose sandbox a call is for, and who calls, by the audit log's names."""

    tenant_id: UUID
    sandbox_id: UUID
    actor: str
    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    trace: TracePlace | None = None
    """The place in a trace of the caller's request."""
    door: str | None = None
    """The address of its node's door; None for the node of this host."""


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class DoorGrant:
    """The contents of a grant."""

    tenant: UUID
    sandbox: UUID
    call: Annotated[str, Field(max_length=32)]
    until: float
    """Seconds since the epoch."""
    actor: Annotated[str, Field(max_length=_TEXT)]
    ip: Annotated[str | None, Field(max_length=_TEXT)]
    user_agent: Annotated[str | None, Field(max_length=_TEXT)]
    request_id: Annotated[str | None, Field(max_length=_TEXT)]
    trace: Annotated[str | None, Field(max_length=_TEXT)] = None
    """A `traceparent`, if its spans are exported. Nodes of earlier releases refuse a grant with it.
    """

    @property
    def place(self) -> TracePlace | None:
        """The place in a trace of the caller's request."""
        return TracePlace.read(self.trace) if self.trace else None


_GRANT = TypeAdapter(DoorGrant)


@dataclass(frozen=True, slots=True)
class GrantKey:
    """Signs and checks grants."""

    _key: bytes = field(repr=False)

    def sign(
        self,
        knock: Knock,
        call: str,
        *,
        good_for_s: float = GOOD_FOR_S,
        now: float | None = None,
    ) -> str:
        """Return a grant for one call on one sandbox."""
        body = _written(knock, call, good_for_s, now)
        return f"{_text(body)}.{_text(self._mac(body))}"

    def check(
        self, text: str, call: str, *, most_s: float = MOST_S, now: float | None = None
    ) -> DoorGrant:
        """Return what the grant says. Raises NotPermitted unless it is good for this call now."""
        body, mac = _parts(text)
        if not hmac.compare_digest(self._mac(body), mac):
            raise NotPermitted("the grant was not signed by this host's key")
        return _read_body(body, call, most_s, now)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)


def sign_for(
    key: Ed25519PrivateKey,
    node: str,
    knock: Knock,
    call: str,
    *,
    good_for_s: float = GOOD_FOR_S,
    now: float | None = None,
) -> str:
    """Return a grant that only one node takes, and only from whoever has this key."""
    body = _written(knock, call, good_for_s, now)
    return f"{_text(body)}.{_text(key.sign(_for_node(node, body)))}"


def check_for(
    key: Ed25519PublicKey,
    node: str,
    text: str,
    call: str,
    *,
    most_s: float = MOST_S,
    now: float | None = None,
) -> DoorGrant:
    """Return what a grant says that the holder of this key has made for this node.

    Raises NotPermitted unless it is good for this call now.
    """
    body, signature = _parts(text)
    try:
        key.verify(signature, _for_node(node, body))
    except InvalidSignature:
        raise NotPermitted("the grant was not signed by its caller for this node") from None
    return _read_body(body, call, most_s, now)


def _for_node(node: str, body: bytes) -> bytes:
    return b"agent-runner/door-grant/" + node.encode() + b"\0" + body


def _written(knock: Knock, call: str, good_for_s: float, now: float | None) -> bytes:
    said = DoorGrant(
        tenant=knock.tenant_id,
        sandbox=knock.sandbox_id,
        call=call,
        until=(time.time() if now is None else now) + good_for_s,
        actor=knock.actor[:_TEXT],
        ip=_short(knock.ip),
        user_agent=_short(knock.user_agent),
        request_id=_short(knock.request_id),
        trace=knock.trace.text if knock.trace and knock.trace.sampled else None,
    )
    plain = _GRANT.dump_python(said, mode="json", exclude_defaults=True)
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def _read_body(body: bytes, call: str, most_s: float, now: float | None) -> DoorGrant:
    """Return what a grant says whose signature is right."""
    try:
        read_json(body.decode())
        grant = _GRANT.validate_json(body)
    except (ValueError, ValidationError, RecursionError):
        raise NotPermitted("the grant is not one of ours") from None
    now = time.time() if now is None else now
    if not now < grant.until <= now + most_s:
        raise NotPermitted("the grant has expired")
    if grant.call != call:
        raise NotPermitted("the grant is for another call")
    return grant


def make_key(folder: Path, group: int | None = None) -> GrantKey:
    """Return this host's key, and make it if there is none. `group` may read it, too.

    Raises SetupError if others may read it.
    """
    path = folder / KEY_FILE
    if not path.exists():
        replace_file(path, secrets.token_bytes(_KEY_BYTES), 0o600)
    give(path, group, alone=0o600, shared=0o640)
    status = path.stat()
    if status.st_uid not in {0, os.geteuid()}:
        raise SetupError(f"{path} is another user's; remove it and start again")
    return GrantKey(_read(path))


def give(path: Path, group: int | None, *, alone: int, shared: int) -> None:
    """Set a path's mode: `alone` for its owner, or `shared` with a group. Raises SetupError."""
    try:
        # First of all: what others can reach for a moment, they can keep open.
        path.chmod(alone)
        if group is not None:
            os.chown(path, -1, group)
            path.chmod(shared)
    except OSError as error:
        raise SetupError(
            f"RUNNER_DOOR_GID: {path} cannot be given to group {group}: {error.strerror}"
        ) from error


def read_key(folder: Path) -> GrantKey:
    """Return the key that the node of this host has made. Raises NodeAway if there is none."""
    try:
        return GrantKey(_read(folder / KEY_FILE))
    except OSError as error:
        raise NodeAway(f"the node has made no key for grants yet: {error.strerror}") from error


def _read(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise SetupError(f"{path} is not a key of {_KEY_BYTES} bytes; remove it and start again")
    return key


def _parts(text: str) -> tuple[bytes, bytes]:
    body, dot, mac = text.partition(".")
    try:
        if not dot or len(text) > LONGEST:
            raise ValueError("not two parts")  # noqa: TRY301 - one way out for all bad grants
        return _bytes(body), _bytes(mac)
    except ValueError:
        raise NotPermitted("the grant is not one of ours") from None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)


def _short(text: str | None) -> str | None:
    return None if text is None else text[:_TEXT]
