"""A tenant that floods the egress proxy does not delay another tenant's requests.

The control is the same flood without shares: each connection continues whenever it can.
"""

import asyncio
import math
import statistics
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from runner.egress import share as shares
from runner.egress.gateway import EgressGateway
from tests.support.floods import FLOODS, HOST
from tests.support.proxying import Way, gateway, in_process, policy, recording, way_out
from tests.support.upstreams import Authority

pytestmark = pytest.mark.alone

QUIET = "quiet.test"
REQUESTS = 10
UNDER_WAY_S = 0.5
DELAYED_TIMES = 1.5
TRIES = 4
DELAYED_S = 0.3
"""Limit for the median: ten times what a loaded host takes beside a flood with a share of its
own."""


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[EgressGateway]:
    """Return a proxy in a process of its own, which trusts the flooding server's certificate."""
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


Opened = Callable[[str | Mapping[str, Any]], AbstractAsyncContextManager[Way]]
"""Opens a sandbox's way out with one rule."""


@asynccontextmanager
async def flooding(kind: str, opened: Opened, folder: Path, ca_pem: str) -> AsyncIterator[None]:
    """Let a hostile program flood the proxy inside the context."""
    trusted = folder / "trusted.pem"
    trusted.write_text(ca_pem)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.floods",
        kind, str(folder / f"{HOST}.pem"), str(trusted),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        rule: dict[str, Any] = {"host": HOST, "port": port, "scheme": FLOODS[kind].scheme}
        if rule["scheme"] == "https":
            rule["methods"] = ["GET"]
        async with opened(rule) as way:
            process.stdin.write(f"{way.path}\n".encode())
            await process.stdin.drain()
            assert await process.stdout.readline() == b"under way\n"
            await asyncio.sleep(UNDER_WAY_S)
            yield
    finally:
        process.kill()
        await process.wait()


async def beside(
    kind: str, quiet: Opened, hostile: Opened, folder: Path, ca_pem: str = ""
) -> float:
    """Return the median time of the quiet tenant's requests beside a flood."""
    async with (
        recording() as server,
        quiet(f"http://{QUIET}:{server.port}") as way,
        flooding(kind, hostile, folder, ca_pem),
    ):
        return statistics.median([await asked(way, server.port) for _ in range(REQUESTS)])


@pytest.mark.parametrize("kind", FLOODS)
async def test_another_tenants_flood_delays_nobody(
    proxy: EgressGateway, tmp_path: Path, kind: str
) -> None:
    """The flood consists of small, costly messages, or of large ones without a pause."""
    quiet, hostile = (
        partial(way_out, proxy, tmp_path, tenant=tenant) for tenant in ("quiet", "hostile")
    )
    assert await beside(kind, quiet, hostile, tmp_path, proxy.ca_pem) < DELAYED_S


async def test_without_shares_a_flood_delays_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the same proxy, with slices that never end.

    On a loaded host, the quiet tenant is slow for other reasons, too, so the test tries a few
    times.
    """
    Authority(tmp_path).context(HOST)

    async def measured(slice_s: float) -> float:
        monkeypatch.setattr(shares, "SLICE_S", slice_s)
        quiet, hostile = (partial(served, share=shares.Share()) for _ in range(2))
        return await beside("interim answers", quiet, hostile, tmp_path)

    def served(rule: str | Mapping[str, Any], *, share: shares.Share) -> Any:
        return in_process(tmp_path, policy(rule), share=share)

    shared = shares.SLICE_S
    delays: list[float] = []
    while len(delays) < TRIES and max(delays, default=0) <= DELAYED_TIMES:
        delays.append(await measured(math.inf) / await measured(shared))
    assert max(delays) > DELAYED_TIMES
