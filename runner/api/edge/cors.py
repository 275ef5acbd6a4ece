"""Origins whose pages may call the API from a browser: those that the operator names."""

from collections.abc import Sequence
from typing import Any

MAX_AGE_S = 600


def cors(origins: Sequence[str]) -> dict[str, Any]:
    """Return the options of Starlette's `CORSMiddleware` for exactly these origins.

    They never allow credentials: such a page calls with a key, and not with somebody's cookie.
    """
    return {
        "allow_origins": list(origins),
        "allow_credentials": False,
        "allow_methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        "allow_headers": [
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "Last-Event-ID",
            "Mcp-Method",
            "Mcp-Name",
            "Mcp-Protocol-Version",
            "X-Request-ID",
            "X-Runner-Tenant",
        ],
        "expose_headers": [
            "ETag",
            "Location",
            "RateLimit",
            "RateLimit-Limit",
            "RateLimit-Policy",
            "RateLimit-Remaining",
            "RateLimit-Reset",
            "Retry-After",
            "WWW-Authenticate",
            "X-Request-ID",
        ],
        "max_age": MAX_AGE_S,
    }
