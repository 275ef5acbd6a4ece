"""One-time tokens, with which somebody joins a tenant or replaces a forgotten password."""

import hashlib
import secrets


def new_token() -> str:
    """Return a new one-time token, of 256 bits."""
    return f"ri_{secrets.token_urlsafe(32)}"


def digest(token: str) -> bytes:
    """Return what to store of a one-time token."""
    return hashlib.sha256(token.encode()).digest()
