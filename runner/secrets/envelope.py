"""AES-256-GCM, bound to what it belongs to: a ciphertext moved elsewhere does not open.

A sealed text is a random nonce of 96 bits, the ciphertext and the tag of 128 bits. Random nonces
are safe for 2**32 messages under one key (NIST SP 800-38D, 8.3).
"""

import os
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_NONCE_BYTES = 12


class Unopened(Exception):
    """Not sealed with this key for this place, or changed since."""


def seal(key: bytes, plain: bytes, *, bound_to: bytes) -> bytes:
    """Return the sealed text."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound_to)


def unseal(key: bytes, sealed: bytes, *, bound_to: bytes) -> bytes:
    """Return what was sealed. Raises Unopened."""
    nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, bound_to)
    except (InvalidTag, ValueError):
        raise Unopened from None


def new_key() -> bytes:
    """Return a random key."""
    return os.urandom(KEY_BYTES)


def value_of(tenant: UUID, name: str) -> bytes:
    """Return what the value of a secret is bound to."""
    return b"agent-runner/secret/v1\0" + tenant.bytes + name.encode()


def webhook_of(tenant: UUID) -> bytes:
    """Return what the signing secret of a tenant's audit webhook is bound to."""
    return b"agent-runner/audit-webhook/v1\0" + tenant.bytes


def data_key_of(tenant: UUID) -> bytes:
    """Return what a tenant's data key is bound to."""
    return b"agent-runner/data-key/v1\0" + tenant.bytes
