"""One proxy process for all tests that leave it unchanged."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from runner.egress.gateway import EgressGateway
from tests.support import proxying
from tests.support.upstreams import Authority

NAMES = (
    "example.test", "www.example.test", "evilexample.test", "example.test.evil", "test",
    "other.test", "tls.test", "fake.test", "xn--bcher-kva.test",
)  # fmt: skip


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the authority that signs the servers' certificates."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def proxy(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EgressGateway]:
    """Return a running proxy that finds every name here on loopback, which its operator trusts."""
    folder = tmp_path_factory.mktemp("proxy")
    async with proxying.gateway(folder, *NAMES, roots=authority.path) as made:
        yield made
