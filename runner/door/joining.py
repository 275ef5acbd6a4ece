"""How a new host gets its certificate: a one-time token says whom to trust, and proves who asks.

A token holds the public key of the deployment's authority, the name of the node, and a secret. The
host connects to `runner nodes admit` and sends the secret only after the other end has shown a
certificate that this very authority has signed for admission. Its private key never leaves it.
"""

import asyncio
import base64
import hashlib
import re
import secrets
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, ClassVar, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, with_config

from runner.door import identity, revocation
from runner.door.identity import DoorPeer, DoorRole, Issued
from runner.door.wire import READ_AHEAD, Chunk, DoorLine, Hung
from runner.protocol.codec import STRICT, Codec
from runner.words.errors import NotPermitted, ProtocolViolation, SetupError

BEGINS = "rn_"
ANSWERED_S = 30.0
"""How long the whole exchange may take the host that joins."""
_SHOWN_FOR = timedelta(days=30)
_RAW = 32
_TOKEN = re.compile(r"rn_([A-Za-z0-9_-]{43})([A-Za-z0-9_-]{43})_([A-Za-z0-9._-]{1,63})", re.ASCII)
_NODE_ID = re.compile(r"([A-Za-z0-9._-]{1,63})-[0-9a-f]{8}", re.ASCII)
_PEM = 64 * 1024
MOST_SETTINGS = 64
"""How many settings a new node can be given."""

Pem: TypeAlias = Annotated[str, Field(max_length=_PEM)]
SettingName: TypeAlias = Annotated[str, Field(pattern=r"^RUNNER_[A-Z0-9_]{1,64}$")]
SettingValue: TypeAlias = Annotated[str, Field(max_length=8192, pattern=r"^[^'\x00-\x1f\x7f]*$")]


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What an operator hands to a new host. Whoever has it may become this node, once."""

    authority: bytes
    """The authority's public key: 32 bytes, as short as a fingerprint of it."""
    node: str
    """The node's name without the digits of its state folder."""
    secret: str = field(repr=False)

    @classmethod
    def make(cls, authority: bytes, node: str) -> "JoinToken":
        """Return a new token for a node."""
        return cls(authority, node, secrets.token_urlsafe(_RAW))

    @classmethod
    def read(cls, text: str) -> "JoinToken":
        """Return the token that was written like this. Raises SetupError."""
        found = _TOKEN.fullmatch(text)
        if found is None:
            raise SetupError("this is no token of `runner nodes invite`: copy it once more")
        return cls(base64.urlsafe_b64decode(found[1] + "="), found[3], found[2])

    def __str__(self) -> str:
        authority = base64.urlsafe_b64encode(self.authority).decode().rstrip("=")
        return f"{BEGINS}{authority}{self.secret}_{self.node}"


def digest(secret: str) -> bytes:
    """Return what to store of a token's secret; 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def invited_name(node_id: str) -> str | None:
    """Return the name for which a node of this id needs an invitation; None if it is no id."""
    found = _NODE_ID.fullmatch(node_id)
    return found[1] if found else None


@dataclass(frozen=True, slots=True)
class JoinMessage:
    """Something that a new host and the admission say to each other."""

    name: ClassVar[str]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class JoinRequest(JoinMessage):
    """Sign this key (a certification request, RFC 2986) for this node."""

    name = "join"
    secret: Annotated[str, Field(max_length=64)]
    node_id: Annotated[str, Field(max_length=80)]
    request: Pem


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class JoinedReply(JoinMessage):
    """The certificate, whom to trust, and settings that the operator gives to each new node."""

    name = "joined"
    certificate: Pem
    authority: Pem
    revoked: Annotated[str | None, Field(max_length=512 * 1024)]
    settings: Annotated[Mapping[SettingName, SettingValue], Field(max_length=MOST_SETTINGS)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class RefusedReply(JoinMessage):
    """The token opens nothing: it is wrong, used, revoked, expired, or for another node."""

    name = "refused"


JOIN_REQUESTS = Codec[JoinMessage](
    speaker="a host that joins", told_by="message", kinds=[JoinRequest]
)
JOIN_REPLIES = Codec[JoinMessage](
    speaker="the admission", told_by="message", kinds=[JoinedReply, RefusedReply]
)


def public_key_of(authority: Path) -> bytes:
    """Return the public key of the authority whose certificate a folder holds, raw.

    Raises SetupError if there is none.
    """
    path = authority / identity.AUTHORITY
    try:
        key = x509.load_pem_x509_certificate(path.read_bytes()).public_key()
    except (OSError, ValueError) as error:
        raise SetupError(f"the doors' authority in {path}: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SetupError(f"{path} is not for an Ed25519 key")
    return _raw(key)


def admission_context(authority: Path) -> ssl.SSLContext:
    """Return the context with which the admission answers, by a new key. Raises SetupError."""
    key = Ed25519PrivateKey.generate()
    issued = identity.certificate_for(
        authority, DoorRole.ADMISSION, "admission", key.public_key(), _SHOWN_FOR
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    # OpenSSL reads keys from files only.
    with tempfile.TemporaryDirectory() as held:
        identity.keep(Path(held), DoorRole.ADMISSION, key, issued)
        context.load_cert_chain(Path(held) / f"{DoorRole.ADMISSION.value}.pem")
    return context


def certification_request(key: Ed25519PrivateKey) -> str:
    """Return a request that a key be certified, which shows that its maker holds it."""
    # It names nobody: the invitation does.
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, None)
    return made.public_bytes(serialization.Encoding.PEM).decode()


def requested_key(request: str) -> Ed25519PublicKey | None:
    """Return the key that somebody wants to be signed and has shown to hold; else None.

    Nothing else of the request counts: the invitation says for whom the certificate is.
    """
    try:
        found = x509.load_pem_x509_csr(request.encode())
        key = found.public_key()
        return key if isinstance(key, Ed25519PublicKey) and found.is_signature_valid else None
    except (ValueError, TypeError, x509.InvalidVersion):
        return None


async def join(place: str, token: JoinToken, node_id: str, folder: Path) -> Mapping[str, str]:
    """Become this node: get a certificate at `place`, a host and a port, and keep it in a folder.

    Returns the settings that came with it. Raises SetupError if nobody answers there, if somebody
    else does, or if the token opens nothing.
    """
    key = Ed25519PrivateKey.generate()
    # Before the token is used up.
    _require_writable(folder)
    wanted = JoinRequest(token.secret, node_id, certification_request(key))
    try:
        async with asyncio.timeout(ANSWERED_S):
            reply = await _exchange(place, token, wanted)
    except (OSError, Hung) as error:
        why = str(error) or "no answer"
        raise SetupError(f"nobody who admits nodes answers at {place}: {why}") from error
    except ProtocolViolation as error:
        raise SetupError(f"{place} does not answer as `runner nodes admit` does") from error
    if not isinstance(reply, JoinedReply):
        raise SetupError(
            "the token was refused: it is wrong, used, revoked, expired, or for another node"
        )
    issued = _checked(reply, token, node_id, key)
    identity.keep(folder, DoorRole.NODE, key, issued)
    return reply.settings


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SetupError(
            f"cannot write to {folder}: {error.strerror}; the token was not sent"
        ) from error


async def _exchange(place: str, token: JoinToken, wanted: JoinRequest) -> JoinMessage | Chunk:
    host, _, port = place.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # This host has no certificate to verify others by yet. The handshake shows that the other end
    # has the key of its certificate, and `_require_admission` that the token's authority signed it.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(
        host.strip("[]"), int(port), ssl=context, limit=READ_AHEAD
    )
    line = DoorLine[JoinMessage, JoinMessage](
        reader, writer, says=JOIN_REQUESTS, hears=JOIN_REPLIES
    )
    try:
        _require_admission(writer.get_extra_info("ssl_object"), token.authority)
        await line.tell(wanted)
        return await line.hear()
    finally:
        line.abort()


def _require_admission(connection: ssl.SSLObject, authority: bytes) -> None:
    """Raise SetupError unless the authority has signed that the other end admits nodes."""
    try:
        shown = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
        known = _signed_by(authority, shown) and _good_now(shown)
        known = known and identity.named_in(shown).role is DoorRole.ADMISSION
    except (ValueError, NotPermitted):
        known = False
    if not known:
        raise SetupError(
            "the other end does not admit nodes for the deployment that the token is from; "
            "the token was not sent to it"
        )


def _checked(reply: JoinedReply, token: JoinToken, node_id: str, key: Ed25519PrivateKey) -> Issued:
    """Return what the admission gave, which is for this node and of the token's authority."""
    issued = Issued(
        reply.certificate.encode(),
        reply.authority.encode(),
        None if reply.revoked is None else reply.revoked.encode(),
    )
    try:
        own = x509.load_pem_x509_certificate(issued.certificate)
        authority = x509.load_pem_x509_certificate(issued.authority).public_key()
        if issued.revoked is not None:
            revocation.serials_in(issued.authority, issued.revoked)
        sound = (
            isinstance(authority, Ed25519PublicKey)
            and _raw(authority) == token.authority
            and _signed_by(token.authority, own)
            and identity.named_in(own)
            == DoorPeer(DoorRole.NODE, node_id, key.public_key(), own.serial_number)
        )
    except (ValueError, NotPermitted):
        sound = False
    if not sound:
        raise SetupError(
            "the admission gave a certificate that is not for this node: tell the operator"
        )
    return issued


def _signed_by(authority: bytes, certificate: x509.Certificate) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(authority)
        key.verify(certificate.signature, certificate.tbs_certificate_bytes)
    except (InvalidSignature, ValueError):
        return False
    return True


def _good_now(certificate: x509.Certificate) -> bool:
    now = datetime.now(UTC)
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
