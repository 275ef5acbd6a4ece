"""The forms of settings: a value of another form ends the process that reads it, by its name."""

import ipaddress
import json
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints

_YEAR_S = 366 * 86_400

Seconds = Annotated[float, Field(gt=0, le=_YEAR_S)]
"""A time that a process waits; a year is the most."""


def is_trustworthy(url: str) -> bool:
    """Return whether what comes from there cannot be changed on its way: TLS, or this host."""
    parts = urlsplit(url)
    if not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_this_host(parts.hostname))


def is_this_host(name: str) -> bool:
    """Return whether a name or an address can only be this host's own."""
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


def _address(text: str) -> str:
    ipaddress.ip_address(text)
    return text


def _begins(*starts: str) -> AfterValidator:
    """Check how a URL begins. The error does not repeat it: it may hold a password."""

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
Network = Annotated[str, AfterValidator(_network)]
Address = Annotated[str, AfterValidator(_address)]
PostgresUrl = Annotated[SecretStr, _begins("postgresql://", "postgres://")]
RedisUrl = Annotated[SecretStr, _begins("redis://", "rediss://", "unix://")]
DockerUrl = Annotated[str, StringConstraints(pattern=r"^(unix|tcp|https?|ssh)://\S+$")]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+\S*$")]
ImageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:_-]{1,253}$")]


def from_json(value: Any) -> Any:
    """Return what a list or an object is written as; text that is not JSON as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        # Refused by the field, whose error names the setting.
        return value
