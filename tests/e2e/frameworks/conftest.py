"""Environments of the frameworks' tests, and a tenant to work in."""

from collections.abc import Mapping

import pytest

from tests.support.deployment import Deployment
from tests.support.environments import Environments


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Environments:
    """Return where environments are made, each once."""
    return Environments(tmp_path_factory.mktemp("frameworks"))


@pytest.fixture(scope="session")
def facts(shared: Deployment) -> Mapping[str, str]:
    """Return the environment of a program that uses our SDK."""
    return {"RUNNER_URL": shared.url, "RUNNER_API_KEY": shared.key("frameworks")}
