"""The OpenAPI document of the running API, from which tests learn what there is to try."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment


@pytest.fixture(scope="session")
def document(shared: Deployment) -> dict[str, Any]:
    """Return the OpenAPI document as the running API serves it."""
    body: dict[str, Any] = httpx.get(f"{shared.url}/openapi.json", timeout=60).json()
    return body


@pytest.fixture(scope="session")
def lasting(image: None) -> Iterator[Deployment]:
    """Return a deployment whose sessions travel over plain HTTP, as in development."""
    with deployments.deployment(insecure_cookies=True, **NO_POOL) as made:
        yield made
