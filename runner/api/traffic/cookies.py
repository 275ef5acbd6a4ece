"""The cookie by which a browser holds a port's token, on the port's own host alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from runner.api.callers import Cookies
from runner.api.sign_in import SignInCookie

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class PortCookie:
    """A port's token in a browser. Ours never go into a sandbox, and none of ours come out."""

    secure: bool

    @property
    def name(self) -> str:
        """With the prefix by which browsers let no other host and no plain HTTP set it."""
        return "__Host-runner_port" if self.secure else "runner_port"

    def read(self, headers: Iterable[Header]) -> str | None:
        """Return the token in a request's cookies."""
        name = self.name.encode()
        for each in _pairs(headers):
            found, _, value = each.partition(b"=")
            if found.strip() == name:
                return value.strip().decode("latin-1")
        return None

    def written(self, token: str) -> bytes:
        """Return the `Set-Cookie` that hands a token to a browser, out of its scripts' reach."""
        secure = "; Secure" if self.secure else ""
        # Lax: whoever follows a link to the page has the cookie at once.
        return f"{self.name}={token}; Path=/; HttpOnly; SameSite=Lax{secure}".encode()

    def is_ours(self, name: bytes) -> bool:
        """Return whether a cookie of this name is ours, here or at the API."""
        return name.strip().lower() in _OURS


_OURS = frozenset(
    name.lower().encode()
    for name in ("__Host-runner_port", "runner_port", *Cookies.NAMES, *SignInCookie.NAMES)
)


def without_ours(headers: Iterable[Header], cookie: PortCookie) -> bytes | None:
    """Return the `Cookie` header without our cookies; None if no other is left."""
    kept = [each for each in _pairs(headers) if not cookie.is_ours(each.partition(b"=")[0])]
    return b"; ".join(kept) or None


def _pairs(headers: Iterable[Header]) -> Iterator[bytes]:
    for name, value in headers:
        if name == b"cookie":
            yield from (each.strip() for each in value.split(b";") if each.strip())
