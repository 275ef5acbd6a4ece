"""Living sandboxes with mixed work, whose worker is killed meanwhile: a small `benchmarks.soak`."""

import asyncio

import pytest

from benchmarks.soak import Terms, run
from tests.support.deployment import build_image

TERMS = Terms(sandboxes=12, tenants=3, seconds=14.0, kills=1)


@pytest.mark.alone
@pytest.mark.timeout(300)
def test_no_sandbox_and_no_byte_is_lost_when_the_worker_is_killed() -> None:
    """Nothing is left at the end. `tests/unit/test_soak.py` shows that losses would be seen."""
    build_image()
    soaked = asyncio.run(run(TERMS))
    assert soaked.wrong == []
    assert soaked.counts["sandboxes"] == TERMS.sandboxes
    for done in (
        "commands",
        "files written and read",
        "lines typed and answered",
        "pauses",
        "bytes of output received",
    ):
        assert soaked.counts[done] >= 1, done
