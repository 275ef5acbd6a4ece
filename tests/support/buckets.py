"""An S3 server with an empty bucket, over HTTP; the settings are plain texts."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.deployment import eventually


@contextmanager
def bucket(address: str = "127.0.0.1") -> Iterator[dict[str, Any]]:
    """Run an S3 server with a bucket in it; yield the settings that lead there."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", address, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        endpoint = f"http://{address}:{port}"
        eventually(lambda: _answers(address, port))
        assert httpx.put(f"{endpoint}/objects").is_success
        yield {
            "objects_url": "s3://objects/of/runner",
            "objects_endpoint": endpoint,
            "objects_access_key": "test-key",
            "objects_secret_key": "test-secret",
        }
    finally:
        server.terminate()
        server.wait(timeout=20)


def _answers(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
