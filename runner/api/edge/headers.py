"""Headers of every answer for browsers, whether a route, an error or the server makes it."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

_FEATURES = (
    "accelerometer",
    "autoplay",
    "bluetooth",
    "camera",
    "clipboard-read",
    "clipboard-write",
    "display-capture",
    "fullscreen",
    "geolocation",
    "gyroscope",
    "hid",
    "identity-credentials-get",
    "magnetometer",
    "microphone",
    "midi",
    "payment",
    "publickey-credentials-get",
    "screen-wake-lock",
    "serial",
    "usb",
    "web-share",
    "xr-spatial-tracking",
)

SECURITY_HEADERS: dict[str, str] = {
    # RFC 6797. Browsers obey it only over TLS, which a proxy in front of this process ends.
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
    # CSP 3: if an answer is displayed nevertheless, it loads nothing, posts nowhere, sits in no
    # frame.
    "Content-Security-Policy": _NOTHING,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in _FEATURES),
    # Every answer belongs to one tenant, or changes with the deployment.
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Off: modern browsers have no such filter, and in old ones it opened holes (decision 0013).
    "X-XSS-Protection": "0",
}
"""Set unless the answer sets them itself, as a page with a looser policy does."""

RAW_HEADERS = tuple(
    (name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()
)


class SecurityHeaders:
    """Adds `SECURITY_HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(header for header in RAW_HEADERS if header[0] not in present),
                ]
            await send(message)

        await self._app(scope, receive, marked)
