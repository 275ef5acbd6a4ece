"""Further authorities that the operator trusts to vouch for servers: RUNNER_EGRESS_ROOTS."""

import ssl
from pathlib import Path

from runner.words.errors import SetupError

MAX_BYTES = 8 * 2**20
"""For comparison: a system's complete bundle has a quarter of a MiB."""


def read_roots(path: Path | None) -> str:
    """Return the certificates (PEM) in the file; an empty text if there is no file.

    Raises SetupError if the file cannot be read or holds no certificates.
    """
    if path is None:
        return ""
    if "-----BEGIN" in str(path):
        raise SetupError("RUNNER_EGRESS_ROOTS: give the path of a file, not the certificates")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise _unusable(path, f"is larger than {MAX_BYTES // 2**20} MiB")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        text = data.decode()
        context.load_verify_locations(cadata=text)
    except ValueError as error:
        raise _unusable(path, "does not hold certificates in PEM") from error
    except ssl.SSLError as error:
        # Not `reason`, which is None for what is no certificate at all.
        raise _unusable(path, "does not hold certificates in PEM, or a malformed one") from error
    if not context.get_ca_certs():
        raise _unusable(path, "holds no certificate of an authority")
    return text


def client_context(extra_roots: str) -> ssl.SSLContext:
    """Return a context that verifies servers by the system's authorities and these (PEM)."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if extra_roots:
        context.load_verify_locations(cadata=extra_roots)
    return context


def _unusable(path: Path, why: str) -> SetupError:
    return SetupError(f"RUNNER_EGRESS_ROOTS: {path} {why}")
