"""Fixtures of the sandbox's integration tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import sandboxes


@pytest.fixture(scope="session", autouse=True)
def image() -> None:
    """Build the sandbox image once."""
    sandboxes.build_image()


@pytest.fixture(scope="session")
def data_image() -> None:
    """Build the image for analysis once."""
    sandboxes.build_image("data")


@pytest.fixture(scope="session")
def code_image() -> None:
    """Build the image for coding agents once."""
    sandboxes.build_image("code")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[sandboxes.Bench]:
    """Return a bench that checks at the end that nothing is left behind."""
    async with sandboxes.bench(tmp_path) as made:
        yield made
