"""A signed address permits one use of E2B's `/files`, without services."""

from typing import cast
from uuid import UUID

import pytest
from fastapi import Request

from runner.api.deps import Dependencies
from runner.api.e2b.daemon.connect import ConnectError
from runner.api.e2b.daemon.files import opened, permitted, write_files
from runner.api.e2b.inside import Inside
from runner.auth.caller import Caller


def inside(signed: str | None) -> Inside:
    """Return somebody in a sandbox, by an address signed for this path, or by a token."""
    return Inside(cast(Caller, None), UUID(int=1), "user", signed)


async def test_an_address_signed_for_no_path_writes_and_reads_nothing() -> None:
    """Otherwise a part's file name would decide where it is written. The body is not read first."""
    for path in (None, "", "/etc/passwd"):
        with pytest.raises(ConnectError, match="signed for no path"):
            await write_files(cast(Request, None), inside(""), cast(Dependencies, None), path, None)
        with pytest.raises(ConnectError, match="signed for no path"):
            await anext(opened(inside(""), cast(Dependencies, None), path, None))


def test_only_the_signed_path_counts() -> None:
    assert permitted(inside("/a"), "/b") == "/a"
    assert permitted(inside(None), "/b") == "/b"
    assert permitted(inside(None), None) is None
