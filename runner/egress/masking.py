"""A secret's value, hidden in text that comes back from a server that echoes it."""

import re
from collections.abc import Iterable

_TEXT = re.compile(
    r"text/|application/([a-z.+-]*\+)?(json|xml|javascript|x-www-form-urlencoded|x-ndjson)",
    re.IGNORECASE,
)


def is_text(content_type: str) -> bool:
    """Return whether content of this type is text; what says nothing of itself is, too."""
    return not content_type or _TEXT.match(content_type) is not None


def masked(text: bytes, secrets: Iterable[bytes]) -> bytes:
    """Return the text with each secret as stars, of the same length."""
    for secret in secrets:
        text = text.replace(secret, b"*" * len(secret))
    return text


class Mask:
    """Masks a body that comes in pieces, a secret that lies across two of them included."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._secrets = sorted((secret for secret in secrets if secret), key=len, reverse=True)
        self._keep = max((len(secret) - 1 for secret in self._secrets), default=0)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what is certain so far; the rest may be the beginning of a secret."""
        whole = masked(self._held + data, self._secrets)
        cut = max(0, len(whole) - self._keep)
        self._held = whole[cut:]
        return whole[:cut]

    def rest(self) -> bytes:
        """Return what was held back."""
        held, self._held = self._held, b""
        return held
