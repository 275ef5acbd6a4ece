"""Fixtures of the profiles' integration tests."""

import pytest

from tests.support import sandboxes


@pytest.fixture(scope="session", autouse=True)
def image() -> None:
    """Build the sandbox image once."""
    sandboxes.build_image()
