"""Revokes certificates of doors before they expire, by a list that the authority signs.

It is the list of RFC 5280, section 5. The authority keeps a copy of each certificate that it signs,
without its key. Revoking a name adds all its certificates that have not expired to the list. An end
whose folder of certificates has the list refuses them. A certificate that the name gets later is
not on the list, and is good.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from runner.base.signing import replace_file
from runner.words.errors import SetupError

REVOKED = "revoked.pem"
_ISSUED = "issued"
_CLOCKS_DIFFER = timedelta(minutes=5)
_LASTING = timedelta(days=3650)
"""How long a list is valid. With one that has expired, no certificate is accepted."""


def keep_copy(authority: Path, certificate: x509.Certificate) -> None:
    """Keep a copy of a certificate that the authority has signed."""
    issued = authority / _ISSUED
    issued.mkdir(mode=0o700, exist_ok=True)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    replace_file(issued / f"{certificate.serial_number:x}.pem", pem, 0o600)


def revoke(authority: Path, signer: Ed25519PrivateKey, issuer: x509.Name, uri: str) -> int:
    """List the certificates for this URI that have not expired; return how many there are.

    Raises SetupError if there are none.
    """
    now = datetime.now(UTC)
    named = [each for each in _issued(authority) if _names(each, uri)]
    taken = [each for each in named if each.not_valid_after_utc > now]
    if not taken:
        raise SetupError(f"{authority} has signed no certificate for {uri} that is still good")
    path = authority / REVOKED
    earlier = list(x509.load_pem_x509_crl(path.read_bytes())) if path.exists() else []
    serials = {each.serial_number: each for each in earlier}
    for each in taken:
        serials[each.serial_number] = (
            x509.RevokedCertificateBuilder()
            .serial_number(each.serial_number)
            .revocation_date(now)
            .build()
        )
    begins = now - _CLOCKS_DIFFER
    made = x509.CertificateRevocationListBuilder().issuer_name(issuer)
    made = made.last_update(begins).next_update(begins + _LASTING)
    for entry in serials.values():
        made = made.add_revoked_certificate(entry)
    signed = made.sign(signer, None)
    replace_file(path, signed.public_bytes(serialization.Encoding.PEM), 0o644)
    return len(taken)


def serials_in(authority: bytes, revoked: bytes) -> frozenset[int]:
    """Return the numbers of the certificates on a list.

    Raises ValueError unless this authority has signed it: with another one's list, no certificate
    is accepted.
    """
    key = x509.load_pem_x509_certificate(authority).public_key()
    found = x509.load_pem_x509_crl(revoked)
    if not isinstance(key, Ed25519PublicKey) or not found.is_signature_valid(key):
        raise ValueError(f"{REVOKED} is another authority's: remove it")
    return frozenset(each.serial_number for each in found)


def _issued(authority: Path) -> list[x509.Certificate]:
    paths = sorted((authority / _ISSUED).glob("*.pem"))
    return [x509.load_pem_x509_certificate(each.read_bytes()) for each in paths]


def _names(certificate: x509.Certificate, uri: str) -> bool:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return uri in found.value.get_values_for_type(x509.UniformResourceIdentifier)
