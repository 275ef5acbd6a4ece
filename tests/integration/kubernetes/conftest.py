"""The manifests, and a migrated PostgreSQL for what reads one."""

import pytest

from tests.integration.store.conftest import api, operators, postgres, superuser, worker
from tests.support.kubernetes import MANIFESTS, OVERLAY, Object, built, with_options

__all__ = ["api", "operators", "postgres", "superuser", "worker"]


@pytest.fixture(scope="session")
def plain() -> list[Object]:
    """Return the objects of the overlay as it is."""
    return built(MANIFESTS / OVERLAY)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """Return the objects of the overlay with all options."""
    return built(with_options(tmp_path_factory.mktemp("manifests")))
