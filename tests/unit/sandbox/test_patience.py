"""A sandbox has a time limit for each answer, and a longer one on a slow host."""

import asyncio

import pytest

from runner.sandbox.guest.patience import Patience
from runner.words.errors import ProtocolViolation


async def test_a_sandbox_that_takes_too_long_is_at_fault() -> None:
    with pytest.raises(ProtocolViolation, match="did not clean up in time"):
        async with Patience(1)(0.01, "clean up"):
            await asyncio.sleep(5)


async def test_a_slow_host_multiplies_the_wait() -> None:
    """An answer that takes twenty times as long is in time with a patience of a hundred."""
    async with Patience(100)(0.01, "clean up"):
        await asyncio.sleep(0.2)


async def test_another_wait_that_ends_inside_is_not_the_sandboxes_fault() -> None:
    with pytest.raises(TimeoutError):
        async with Patience(1)(5, "clean up"):
            raise TimeoutError
