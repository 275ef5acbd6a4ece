"""AES-256-GCM, bound to what it belongs to: a ciphertext that was moved elsewhere does not open.

A sealed text consists of a random nonce of 96 bits, the ciphertext, and a tag of 128 bits. Random
nonces are safe for 2**32 messages under one key (NIST SP 800-38D, 8.3).
"""

import hashlib
import hmac
import os
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_NONCE_BYTES = 12


class Unopened(Exception):
    """The text was not sealed with this key for this place, or has changed since."""


def seal(key: bytes, plain: bytes, *, bound_to: bytes) -> bytes:
    """Return the sealed text."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound_to)


def unseal(key: bytes, sealed: bytes, *, bound_to: bytes) -> bytes:
    """Return the text that was sealed. Raises Unopened."""
    nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, bound_to)
    except (InvalidTag, ValueError):
        raise Unopened from None


def mac(key: bytes, message: bytes, *, purpose: bytes) -> bytes:
    """Return the HMAC-SHA256 of a message, by a key that is derived for one purpose (RFC 5869)."""
    derived = HKDF(SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(key)
    return hmac.digest(derived, message, hashlib.sha256)


def new_key() -> bytes:
    """Return a random key."""
    return os.urandom(KEY_BYTES)


def value_of(tenant: UUID, name: str) -> bytes:
    """Return the text to which the value of a secret is bound."""
    return b"agent-runner/secret/v1\0" + tenant.bytes + name.encode()


def webhook_of(tenant: UUID) -> bytes:
    """Return the text to which the signing secret of a tenant's audit webhook is bound."""
    return b"agent-runner/audit-webhook/v1\0" + tenant.bytes


def masks_of(tenant: UUID, sandbox: UUID) -> bytes:
    """Return the text to which the values are bound that are masked in a living sandbox."""
    return b"agent-runner/sandbox-masks/v1\0" + tenant.bytes + sandbox.bytes


def snapshot_of(tenant: UUID, snapshot: UUID) -> bytes:
    """Return the text to which a snapshot and its own key are bound."""
    return b"agent-runner/snapshot/v1\0" + tenant.bytes + snapshot.bytes


def template_of(tenant: UUID, template: UUID) -> bytes:
    """Return the text to which a template's content and its own key are bound."""
    return b"agent-runner/template/v1\0" + tenant.bytes + template.bytes


def data_key_of(tenant: UUID) -> bytes:
    """Return the text to which a tenant's data key is bound."""
    return b"agent-runner/data-key/v1\0" + tenant.bytes
