"""The deployment's certificate authority, and certificates for hosts whose TLS the proxy ends.

Only sandboxes whose rules need it trust this authority, and only they get its certificate. Its key
is made at first use and never leaves the host.
"""

import os
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runner.network.names import address_in
from runner.words.errors import SetupError

_CA_DAYS = 3650
_LEAF_DAYS = 7
_BACKDATE = timedelta(hours=1)
_KEEP = 256


def load_or_make_authority(folder: Path) -> tuple[str, str]:
    """Return the authority's key and certificate (PEM); make them if there are none yet.

    Raises SetupError if the existing ones cannot be used.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "authority.pem"
    if not path.exists():
        made = "".join(_make_authority())
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            file.write(made)
        try:
            # If two processes do this at once, a link keeps the first authority; a rename would
            # not.
            os.link(file.name, path)
        except FileExistsError:
            pass
        finally:
            Path(file.name).unlink()
    try:
        text = path.read_text()
        begin = text.index("-----BEGIN CERTIFICATE-----")
        key, certificate = text[:begin], text[begin:]
        serialization.load_pem_private_key(key.encode(), None)
        x509.load_pem_x509_certificate(certificate.encode())
    except (OSError, ValueError) as error:
        raise SetupError(
            f"{path} is not the authority of egress interception ({error}); "
            "remove it to have a new one made"
        ) from error
    return key, certificate


def _make_authority() -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Agent Runner egress proxy")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(key), certificate.public_bytes(serialization.Encoding.PEM).decode()


class Leaves:
    """Makes and keeps a TLS server context for each host whose TLS the proxy ends."""

    def __init__(self, key_pem: str, certificate_pem: str) -> None:
        loaded = serialization.load_pem_private_key(key_pem.encode(), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise TypeError("the authority's key is not an elliptic curve's")
        self._key = loaded
        self._certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: dict[str, tuple[datetime, ssl.SSLContext]] = {}

    def context(self, host: str) -> ssl.SSLContext:
        """Return a context with a certificate for this host, valid for some days."""
        now = datetime.now(UTC)
        made, context = self._contexts.get(host, (None, None))
        if made is None or context is None or now - made > timedelta(days=_LEAF_DAYS / 2):
            context = self._make(host, now)
            if len(self._contexts) >= _KEEP:
                self._contexts.pop(next(iter(self._contexts)))
            self._contexts[host] = (now, context)
        return context

    def _make(self, host: str, now: datetime) -> ssl.SSLContext:
        address = address_in(host)
        name = x509.DNSName(host) if address is None else x509.IPAddress(address)
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(self._leaf_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(now + timedelta(days=_LEAF_DAYS))
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        # The standard library reads a chain only from a path; a memfd has one in memory.
        chain = leaf.public_bytes(serialization.Encoding.PEM).decode() + _pem(self._leaf_key)
        memory = os.memfd_create("leaf")
        try:
            os.write(memory, chain.encode())
            context.load_cert_chain(f"/proc/self/fd/{memory}")
        finally:
            os.close(memory)
        return context


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
