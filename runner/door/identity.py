"""Identities at a door that other hosts reach: TLS 1.3, with a certificate at each end.

One authority of the deployment signs both. A certificate names one role and one name, in a URI
(RFC 5280 4.2.1.6), and is good for one end of a connection only: a node's for the server, an API's
for the client. So whoever steals a host's key can pretend to be that host and nobody else.

A folder holds `authority.pem`, the certificate of the authority to trust; `node.pem` or `api.pem`,
a key and its certificate; and, if certificates were revoked, `revoked.pem`. All of them may be
replaced at any time. Connections that begin later use the new ones.
"""

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runner.base.signing import replace_file
from runner.door import revocation
from runner.words.errors import NotPermitted, SetupError

AUTHORITY = "authority.pem"
AUTHORITY_KEY = "authority.key"
_SCHEME = "agent-runner:"
_CLOCKS_DIFFER = timedelta(minutes=5)
_AUTHORITY_DAYS = 3650
_log = structlog.get_logger("runner.door")


class DoorRole(StrEnum):
    """The use of a certificate."""

    NODE = "node"
    """It answers at a door."""
    API = "api"
    """It knocks."""
    ADMISSION = "admission"
    """It gives certificates to hosts that join, and neither answers at a door nor knocks."""


@dataclass(frozen=True, slots=True)
class DoorPeer:
    """The end of a connection that a certificate names, and the certificate's key."""

    role: DoorRole
    name: str
    key: Ed25519PublicKey
    serial: int
    """The certificate's number."""


class DoorIdentity:
    """One end's key, certificate and trust, as a folder holds them now."""

    def __init__(self, folder: Path, role: DoorRole) -> None:
        """Take the folder. Raises SetupError if what is in it cannot be used."""
        self._folder = folder
        self._own = folder / f"{role.value}.pem"
        self._authority = folder / AUTHORITY
        self._revoked = folder / revocation.REVOKED
        self._role = role
        self._read_of: Sequence[tuple[int, int]] | None = None
        self._context: ssl.SSLContext | None = None
        self._key: Ed25519PrivateKey | None = None
        self._taken_back: frozenset[int] = frozenset()
        self.refresh()

    @property
    def context(self) -> ssl.SSLContext:
        """The certificate and key that connections begin with from now on."""
        if self._context is None:
            raise RuntimeError("refresh() was not called")
        return self._context

    @property
    def key(self) -> Ed25519PrivateKey:
        """The private key that the certificate is for."""
        if self._key is None:
            raise RuntimeError("refresh() was not called")
        return self._key

    @property
    def taken_back(self) -> frozenset[int]:
        """The numbers of the certificates that were revoked."""
        return self._taken_back

    def refresh(self) -> bool:
        """Use what the folder holds now; return whether that has changed. Raises SetupError.

        After an error, what was in use before stays in use.
        """
        try:
            marks = [(each.st_mtime_ns, each.st_ino) for each in self._stats()]
            if marks == self._read_of:
                return False
            key = serialization.load_pem_private_key(self._own.read_bytes(), None)
            taken_back = self._listed()
            context = self._made()
        except (OSError, ValueError, ssl.SSLError) as error:
            raise SetupError(f"the door's certificates in {self._folder}: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SetupError(f"{self._own} holds no Ed25519 key")
        self._context, self._key, self._read_of = context, key, marks
        self._taken_back = taken_back
        return True

    def follow(self) -> bool:
        """Use what the folder holds now; return whether that has changed.

        If it cannot be used, log that and go on as before.
        """
        try:
            changed = self.refresh()
        except SetupError as error:
            _log.error("door_certificates_unusable", why=error.detail)
            return False
        if changed:
            _log.info("door_certificates_read", folder=str(self._folder))
        return changed

    def _stats(self) -> list[os.stat_result]:
        revoked = [self._revoked] if self._revoked.exists() else []
        return [each.stat() for each in (self._own, self._authority, *revoked)]

    def _listed(self) -> frozenset[int]:
        if not self._revoked.exists():
            return frozenset()
        return revocation.serials_in(self._authority.read_bytes(), self._revoked.read_bytes())

    def _made(self) -> ssl.SSLContext:
        serves = self._role is DoorRole.NODE
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if serves else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # Names of hosts say nothing about nodes: `peer_of` reads whom a certificate names.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        if serves:
            # Each connection is verified by itself: what has expired is not resumed.
            context.num_tickets = 0
        context.load_verify_locations(self._authority)
        if self._revoked.exists():
            context.load_verify_locations(self._revoked)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        context.load_cert_chain(self._own)
        return context


def peer_of(connection: ssl.SSLObject, wanted: DoorRole, name: str | None = None) -> DoorPeer:
    """Return what the other end's certificate says, which the handshake has verified.

    Raises NotPermitted if it has not the wanted role, or not the name, if one is given.
    """
    peer = _named(connection)
    if peer.role is not wanted or name not in {None, peer.name}:
        raise NotPermitted(f"the {peer.role.value} {peer.name} is at the other end")
    return peer


def _named(connection: ssl.SSLObject) -> DoorPeer:
    raw = connection.getpeercert(binary_form=True)
    if raw is None:
        raise NotPermitted("the other end has shown no certificate")
    return named_in(x509.load_der_x509_certificate(raw))


def named_in(certificate: x509.Certificate) -> DoorPeer:
    """Return whom a certificate names. Raises NotPermitted if it is none of ours."""
    key = certificate.public_key()
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        (uri,) = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        role, _, name = uri.removeprefix(_SCHEME).partition("/")
        if not uri.startswith(_SCHEME) or not name or not isinstance(key, Ed25519PublicKey):
            raise ValueError(uri)  # noqa: TRY301 - one way out for all foreign certificates
        return DoorPeer(DoorRole(role), name, key, certificate.serial_number)
    except (ValueError, x509.ExtensionNotFound):
        raise NotPermitted("the other end's certificate is none of this deployment's") from None


def make_authority(folder: Path) -> None:
    """Make the authority of a deployment in an empty folder. Keep its key off the nodes.

    Raises SetupError if there is one.
    """
    path = folder / AUTHORITY_KEY
    if path.exists():
        raise SetupError(f"{path} exists: an authority is made once")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "agent-runner doors")])
    certificate = (
        _begun(name, name, key.public_key(), timedelta(days=_AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, None)
    )
    replace_file(path, _pem(key), 0o600)
    replace_file(folder / AUTHORITY, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def certify(
    authority: Path,
    folder: Path,
    role: DoorRole,
    name: str,
    lasting: timedelta,
    *,
    now: datetime | None = None,
) -> None:
    """Write a new key and its certificate for one end to a folder, beside the authority's.

    Existing files are replaced, each in one step. Raises SetupError if the authority cannot be
    read.
    """
    key = Ed25519PrivateKey.generate()
    keep(folder, role, key, certificate_for(authority, role, name, key.public_key(), lasting, now))


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate in PEM, and whom its holder trusts: its authority and what that has revoked."""

    certificate: bytes
    authority: bytes
    revoked: bytes | None


def certificate_for(
    authority: Path,
    role: DoorRole,
    name: str,
    key: Ed25519PublicKey,
    lasting: timedelta,
    now: datetime | None = None,
) -> Issued:
    """Sign one end's key, and keep a copy, so that it can be revoked. Raises SetupError."""
    signer, issuer = _authority_in(authority)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{role.value} {name}"[:64])])
    uri = x509.UniformResourceIdentifier(_uri(role, name))
    knocks = role is DoorRole.API
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if knocks else ExtendedKeyUsageOID.SERVER_AUTH
    certificate = (
        _begun(subject, issuer.subject, key, lasting, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, None)
    )
    revocation.keep_copy(authority, certificate)
    revoked = authority / revocation.REVOKED
    return Issued(
        certificate.public_bytes(serialization.Encoding.PEM),
        (authority / AUTHORITY).read_bytes(),
        revoked.read_bytes() if revoked.exists() else None,
    )


def keep(folder: Path, role: DoorRole, key: Ed25519PrivateKey, issued: Issued) -> None:
    """Write one end's key and certificate to its folder, each file at once."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(folder / AUTHORITY, issued.authority, 0o644)
    if issued.revoked is not None:
        replace_file(folder / revocation.REVOKED, issued.revoked, 0o644)
    replace_file(folder / f"{role.value}.pem", _pem(key) + issued.certificate, 0o600)


def revoke(authority: Path, role: DoorRole, name: str) -> int:
    """Add a name's certificates that have not expired to `revoked.pem`; return how many there are.

    Raises SetupError if there are none, or if the authority cannot be read.
    """
    signer, issuer = _authority_in(authority)
    return revocation.revoke(authority, signer, issuer.subject, _uri(role, name))


def _authority_in(folder: Path) -> tuple[Ed25519PrivateKey, x509.Certificate]:
    try:
        signer = serialization.load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), None)
        issuer = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
    except (OSError, ValueError) as error:
        raise SetupError(f"the doors' authority in {folder}: {error}") from error
    if not isinstance(signer, Ed25519PrivateKey):
        raise SetupError(f"{folder / AUTHORITY_KEY} is not an Ed25519 key")
    return signer, issuer


def _uri(role: DoorRole, name: str) -> str:
    return f"{_SCHEME}{role.value}/{name}"


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: Ed25519PublicKey,
    lasting: timedelta,
    now: datetime | None = None,
) -> x509.CertificateBuilder:
    begins = (now or datetime.now(UTC)) - _CLOCKS_DIFFER
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + _CLOCKS_DIFFER + lasting)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
