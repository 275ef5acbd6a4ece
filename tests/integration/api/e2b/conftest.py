"""A deployment with the images that E2B's templates stand for."""

from collections.abc import Iterator

import pytest

from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, PORTS_DOMAIN, Deployment


@pytest.fixture(scope="session")
def deployed(image: None) -> Iterator[Deployment]:
    """Return a deployment that E2B's clients may use; each test uses tenants of its own."""
    deployments.build_image("base")
    with deployments.deployment(
        images=("python", "base"), ports_domain=PORTS_DOMAIN, **NO_POOL
    ) as made:
        yield made
