"""No sandbox changes the devices that it shares with the host, whichever runtime starts it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.base.settings import OciRuntime
from runner.sandbox.engine.spec import container_config
from runner.words.sandbox import Isolation
from tests.support import sandboxes

NULL = Path("/dev/null")
OURS = (0, 0, 0o666)
RUNTIMES: dict[str, tuple[Isolation, OciRuntime]] = {
    "runc": (Isolation.CONTAINER, "runc"),
    "crun": (Isolation.CONTAINER, "crun"),
    "gvisor": (Isolation.GVISOR, "runc"),
}


def owned() -> tuple[int, int, int]:
    """Return who owns the host's /dev/null, and who may use it."""
    found = NULL.stat()
    return found.st_uid, found.st_gid, found.st_mode & 0o7777


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Begin with root's /dev/null, and leave it behind: others may have started gVisor here."""
    os.chown(NULL, *OURS[:2])
    yield
    os.chown(NULL, *OURS[:2])


def with_dev_null(*asked: Any) -> dict[str, Any]:
    """Return a container's configuration in which the standard input is /dev/null."""
    return {**container_config(*asked), "OpenStdin": False}


@pytest.mark.parametrize("name", RUNTIMES)
async def test_a_sandbox_leaves_dev_null_as_it_is(name: str, tmp_path: Path) -> None:
    """Whoever owns it may take it away from all others."""
    isolation, runtime = RUNTIMES[name]
    opening = sandboxes.bench(tmp_path, isolation=isolation, oci_runtime=runtime)
    async with opening as bench:
        ran = await bench.bash("cat < /dev/null && echo read")
    assert ran.stdout == b"read\n"
    assert owned() == OURS


async def test_gvisor_gives_dev_null_to_nobody_if_it_gets_it(tmp_path: Path) -> None:
    """The control."""
    opening = sandboxes.bench(tmp_path, isolation=Isolation.GVISOR, configure=with_dev_null)
    async with opening as bench:
        await bench.bash("true")
    assert owned() != OURS
