"""A tenant that floods the egress proxy does not delay another tenant's requests.

The control is another sandbox of the tenant that floods: its requests wait, as the shares are
between tenants and not within one.
"""

import asyncio
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from runner.egress.gateway import EgressGateway
from tests.floods import FLOODS, HOST
from tests.proxying import Way, gateway, recording, way_out
from tests.upstreams import Authority

QUIET = "quiet.test"
REQUESTS = 10
UNDER_WAY_S = 0.5
DELAYED_TIMES = 1.5
TRIES = 4
DELAYED_S = 0.3
"""As the median: ten times what a loaded host takes beside a flood that has its share."""


@dataclass(frozen=True)
class Beside:
    """How long a request took beside a flood, as the median."""

    quiet_s: float
    """One of another tenant."""
    own_s: float
    """One of another sandbox of the tenant that floods."""


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[EgressGateway]:
    """Return a proxy, in a process of its own, that trusts the flooding server's certificate."""
    authority = Authority(tmp_path)
    authority.context(HOST)
    async with gateway(tmp_path / "state", HOST, QUIET, roots=authority.path) as made:
        yield made


async def asked(way: Way, port: int) -> float:
    """Return how long a request takes."""
    began = perf_counter()
    async with way.connection() as (reader, writer):
        where = b"%b:%d" % (QUIET.encode(), port)
        writer.write(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (where, where))
        await asyncio.wait_for(reader.readuntil(b"ok"), 30)
    return perf_counter() - began


@asynccontextmanager
async def flooding(kind: str, proxy: EgressGateway, folder: Path) -> AsyncIterator[None]:
    """Let a hostile tenant flood the proxy while the context lasts."""
    trusted = folder / "trusted.pem"
    trusted.write_text(proxy.ca_pem)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.floods", kind, str(folder / f"{HOST}.pem"), str(trusted),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        rule: dict[str, Any] = {"host": HOST, "port": port, "scheme": FLOODS[kind].scheme}
        if rule["scheme"] == "https":
            rule["methods"] = ["GET"]
        async with way_out(proxy, folder, rule, tenant="hostile") as way:
            process.stdin.write(f"{way.path}\n".encode())
            await process.stdin.drain()
            assert await process.stdout.readline() == b"under way\n"
            await asyncio.sleep(UNDER_WAY_S)
            yield
    finally:
        process.kill()
        await process.wait()


async def beside(kind: str, proxy: EgressGateway, folder: Path) -> Beside:
    """Ask in turn for the quiet tenant and for the hostile one, beside the flood."""
    async with recording() as server:
        rule = f"http://{QUIET}:{server.port}"
        async with (
            way_out(proxy, folder, rule, tenant="quiet") as quiet,
            way_out(proxy, folder, rule, tenant="hostile") as own,
            flooding(kind, proxy, folder),
        ):
            took = [
                (await asked(quiet, server.port), await asked(own, server.port))
                for _ in range(REQUESTS)
            ]
    return Beside(*(statistics.median(each) for each in zip(*took, strict=True)))


@pytest.mark.parametrize("kind", FLOODS)
async def test_another_tenants_flood_delays_nobody(
    proxy: EgressGateway, tmp_path: Path, kind: str
) -> None:
    """Be it small and costly, or large and without a pause."""
    assert (await beside(kind, proxy, tmp_path)).quiet_s < DELAYED_S


async def test_a_tenants_own_flood_delays_it(proxy: EgressGateway, tmp_path: Path) -> None:
    """The control: what a flood does to whoever has to share with it.

    On a loaded host the quiet one is slow for other reasons, too, so it is tried a few times.
    """
    delays: list[float] = []
    while len(delays) < TRIES and max(delays, default=0) <= DELAYED_TIMES:
        found = await beside("single bytes", proxy, tmp_path)
        delays.append(found.own_s / found.quiet_s)
    assert max(delays) > DELAYED_TIMES
