"""Fixtures of the security tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.store.conftest import owner, postgres, superuser
from tests.support import sandboxes

__all__ = ["owner", "postgres", "superuser"]


@pytest.fixture(scope="session", autouse=True)
def image() -> None:
    """Build the sandbox image once."""
    sandboxes.build_image()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[sandboxes.Bench]:
    """Return a bench that checks at the end that it left nothing behind."""
    async with sandboxes.bench(tmp_path) as made:
        yield made
