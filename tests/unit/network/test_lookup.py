"""A name is looked up by the host's resolver, and once more if that fails for the moment."""

import asyncio
import socket
from ipaddress import ip_address

import pytest

from runner.network.lookup import system_lookup

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]


class Resolver:
    """Answers with these, one after the other, in place of the host's resolver."""

    def __init__(self, *answers: int | None) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def getaddrinfo(self, name: str, *_: object, **__: object) -> object:
        """Raise the next failure, or return an address."""
        self.asked.append(name)
        if (failure := self._answers.pop(0)) is not None:
            raise socket.gaierror(failure, "failed")
        return FOUND


async def looked_up(monkeypatch: pytest.MonkeyPatch, resolver: Resolver) -> object:
    """Look a name up by this resolver."""
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolver.getaddrinfo)
    monkeypatch.setattr("runner.network.lookup.AGAIN_AFTER_S", 0.0)
    return await system_lookup({}, None)("a.example.test")


async def test_a_failure_for_the_moment_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(socket.EAI_AGAIN, None)
    assert await looked_up(monkeypatch, resolver) == [ip_address("192.0.2.1")]
    assert resolver.asked == ["a.example.test."] * 2


@pytest.mark.parametrize(
    ("answers", "times"),
    [((socket.EAI_AGAIN, socket.EAI_AGAIN), 2), ((socket.EAI_NONAME,), 1)],
    ids=["it lasts", "there is no such name"],
)
async def test_a_failure_that_lasts_is_told(
    answers: tuple[int, ...], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(*answers)
    with pytest.raises(socket.gaierror) as failed:
        await looked_up(monkeypatch, resolver)
    assert failed.value.errno == answers[-1]
    assert len(resolver.asked) == times
