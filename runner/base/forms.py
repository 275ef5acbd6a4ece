"""The forms of settings. A value of another form ends the process, which names the setting."""

import ipaddress
import json
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints

from runner.words.templates import MOST_REFERENCE, REFERENCE

_YEAR_S = 366 * 86_400
MOST_PORT = 2**16 - 1
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+: [\x20-\x7e]*")
"""Names are tokens (RFC 9110 5.6.2); of values, only those that every server takes."""

Seconds = Annotated[float, Field(gt=0, le=_YEAR_S)]
"""A time that a process waits; at most a year."""


def is_trustworthy(url: str) -> bool:
    """Return whether nobody can change data from there on its way: it uses TLS, or is this host."""
    parts = urlsplit(url)
    if not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_this_host(parts.hostname))


def is_this_host(name: str) -> bool:
    """Return whether a name or an address can only belong to this host."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}; a network is written like 10.2.0.0/16") from None
    return text


def _with_port(place: str) -> str:
    if int(place.rpartition(":")[2]) > MOST_PORT:
        raise ValueError(f"a port is at most {MOST_PORT}")
    return place


def _trustworthy(url: str) -> str:
    if not is_trustworthy(url):
        raise ValueError("must be an https:// address, unless it is on this host")
    return url


def _address(text: str) -> str:
    ipaddress.ip_address(text)
    return text


def _begins(*starts: str) -> AfterValidator:
    """Check how a URL begins. The error does not repeat the URL, which may hold a password."""

    def check(url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(starts):
            raise ValueError(f"must begin with {' or '.join(starts)}")
        return url

    return AfterValidator(check)


Origin = Annotated[
    str,
    StringConstraints(pattern=r"^https?://([a-z0-9.-]{1,253}|\[[0-9a-f:]{2,45}\])(:[0-9]{1,5})?$"),
]
"""Scheme, host and port as a browser writes them (RFC 6454 6.1): no path, and no wildcard."""
_DOMAIN_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
DomainName = Annotated[
    str,
    StringConstraints(max_length=200, pattern=rf"^{_DOMAIN_LABEL}(\.{_DOMAIN_LABEL})*$"),
]
"""A domain in lower case, with room for the name of a host below it (RFC 1123 2.1)."""
Network = Annotated[str, AfterValidator(_network)]
Address = Annotated[str, AfterValidator(_address)]
PostgresUrl = Annotated[SecretStr, _begins("postgresql://", "postgres://")]
RedisUrl = Annotated[SecretStr, _begins("redis://", "rediss://", "unix://")]
DockerUrl = Annotated[str, StringConstraints(pattern=r"^(unix|tcp|https?|ssh)://\S+$")]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+\S*$")]
IssuerUrl = Annotated[
    str, StringConstraints(pattern=r"^https?://[^\s?#]{1,500}$"), AfterValidator(_trustworthy)
]
"""An identity provider's address, as its tokens name it (OpenID Connect Core 2)."""
McpUrl = Annotated[
    str,
    StringConstraints(
        pattern=r"^https?://([a-z0-9.-]{1,253}|\[[0-9a-f:]{2,45}\])(:[0-9]{1,5})?/mcp$"
    ),
    AfterValidator(_trustworthy),
]
"""The address of `/mcp` as a resource identifier: in lower case, no query (RFC 9728 1.2)."""
CallbackUrl = Annotated[
    str,
    StringConstraints(
        pattern=r"^https?://([a-z0-9.-]{1,253}|\[[0-9a-f:]{2,45}\])(:[0-9]{1,5})?"
        r"/v1/login/oidc/callback$"
    ),
    AfterValidator(_trustworthy),
]
"""Where an identity provider sends browsers back to: compared letter by letter (RFC 9700 2.1)."""
ImageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
ImageReference = Annotated[
    str, StringConstraints(pattern=rf"^{REFERENCE}$", max_length=MOST_REFERENCE)
]
Place = Annotated[
    str,
    StringConstraints(pattern=r"^([A-Za-z0-9._-]{1,253}|\[[0-9a-fA-F:]{2,45}\]):[1-9][0-9]{0,4}$"),
    AfterValidator(_with_port),
]
"""A host and a port; an address of IPv6 is in brackets."""
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:_-]{1,253}$")]


def headers(text: SecretStr) -> dict[str, str]:
    """Return the headers that a JSON object holds. Raises ValueError, which names none of them."""
    found = from_json(text.get_secret_value())
    if not isinstance(found, dict) or not all(
        isinstance(value, str) and _HEADER.fullmatch(f"{name}: {value}")
        for name, value in found.items()
    ):
        raise ValueError('must be a JSON object of headers by their names, such as {"a": "b"}')
    return found


def _checked_headers(text: SecretStr) -> SecretStr:
    headers(text)
    return text


Headers = Annotated[SecretStr, AfterValidator(_checked_headers)]
"""Headers of a request, as a JSON object; their values may be secrets."""


def from_json(value: Any) -> Any:
    """Return the list or object that the text is in JSON; if it is not JSON, return the text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        # The field refuses it then, with an error that names the setting.
        return value
