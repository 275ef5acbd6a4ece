"""An identity provider for tests: an HTTP server on loopback, with keys made on the spot."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

AUDIENCE = "agent-runner"
Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""
ALGORITHMS = {"RSA": "RS256", "EC": "ES256", "OKP": "Ed25519"}


def new_key(kind: str, kid: str) -> Key:
    """Return a new private key."""
    match kind:
        case "RSA":
            return RSAKey.generate_key(2048, {"kid": kid})
        case "EC":
            return ECKey.generate_key("P-256", {"kid": kid})
        case _:
            return OKPKey.generate_key("Ed25519", {"kid": kid})


@dataclass
class Provider:
    """A provider that notes its requests, and answers as it is told."""

    server: ThreadingHTTPServer
    keys: dict[str, Key] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    credentials: list[str | None] = field(default_factory=list)
    """What each POST request had as `Authorization`."""
    down: bool = False
    says: dict[str, Any] = field(default_factory=dict)
    more: Callable[[str, str, bytes], Answer | None] = lambda *_: None
    """Answers to other requests, by method, path and body; None is an error."""

    @property
    def url(self) -> str:
        """The issuer that its tokens name."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def rotate(self, *kids: str, kind: str = "EC") -> None:
        """Publish new keys with these ids, and no others."""
        self.keys = {kid: new_key(kind, kid) for kid in kids}

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return the claims of a valid token; None leaves one out."""
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "nbf": now,
            "exp": now + 300, "tenant": "o-acme", "role": "developer", **changed,
        }  # fmt: skip
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        kid: str,
        claims: Mapping[str, Any] | None = None,
        *,
        key: Key | None = None,
        header: Mapping[str, Any] | None = None,
    ) -> str:
        """Return a token signed with that key, or with another one in its name."""
        key = key or self.keys[kid]
        algorithm = ALGORITHMS[key.key_type]
        shown = {"alg": algorithm, "kid": kid, **(header or {})}
        shown = {name: value for name, value in shown.items() if value is not None}
        return sign(shown, dict(claims or self.claims()), key, algorithm)

    def document(self) -> dict[str, Any]:
        """Return its discovery document."""
        return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.says}


def sign(header: Mapping[str, Any], claims: Mapping[str, Any], key: Key, algorithm: str) -> str:
    """Sign, even under a header that no honest library would write."""
    honest = jwt.encode({"alg": algorithm}, dict(claims), key, algorithms=[algorithm])
    if header == {"alg": algorithm}:
        return honest
    model = JWSRegistry.algorithms[algorithm]
    signed = f"{encode(header)}.{encode(claims)}"
    return f"{signed}.{encode(model.sign(signed.encode(), key))}"


def hmac_signed(header: Mapping[str, Any], claims: Mapping[str, Any], secret: bytes) -> str:
    """Sign with HMAC-SHA256 under any secret, such as a public key."""
    signed = f"{encode(header)}.{encode(claims)}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def encode(value: Mapping[str, Any] | bytes) -> str:
    """Return base64url without padding, of JSON if it is an object."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@contextmanager
def provider() -> Iterator[Provider]:
    """Run an identity provider with no keys yet."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.requests.append(self.path)
            body = b""
            if not made.down and self.path == "/.well-known/openid-configuration":
                body = json.dumps(made.document()).encode()
            elif not made.down and self.path.endswith("/keys"):
                keys = [key.as_dict(private=False) for key in made.keys.values()]
                body = json.dumps({"keys": keys}).encode()
            if body:
                self._answer((200, {}, body))
            else:
                self._answer(made.more("GET", self.path, b""))

        def do_POST(self) -> None:
            made.requests.append(self.path)
            made.credentials.append(self.headers.get("Authorization"))
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(made.more("POST", self.path, body))

        def _answer(self, answer: Answer | None) -> None:
            status, headers, body = answer or (503, {}, b"")
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Provider(server)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
