"""The SDK keeps the beginning of a run's output, and a count of the rest."""

import json
from typing import Any

import pytest

from agent_runner import Client
from agent_runner import runs as module
from agent_runner.runs import Result, Run
from tests.support.answering import Request, reply, served
from tests.unit.client.test_strangers import KEY, context

ENDED = ("ended", {"ok": True, "context_ended": False})


def ran(*events: tuple[str, dict[str, Any]], **options: Any) -> Run:
    """Return what comes of a run of which the API tells these events, over HTTP."""
    told = "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in events)

    def answer(request: Request) -> None:
        reply(request, 200, told.encode(), "text/event-stream")

    with served(answer) as url, Client(url, KEY) as api:
        return context(api).run("1", **options)


def result(value: str) -> tuple[str, dict[str, Any]]:
    return "result", {"data": {"text/plain": value}, "is_main": False, "truncated": False}


def test_the_beginning_of_output_is_kept_and_the_rest_counted() -> None:
    """Each stream is bounded by itself. To get all of it, use callbacks."""
    pieces = [("stdout", {"text": "x" * 1000})] * 3 + [("stderr", {"text": "e" * 1000})]
    heard = list[str]()
    whole = ran(*pieces, ENDED)
    assert (len(whole.stdout), len(whole.stderr), whole.omitted_bytes) == (3000, 1000, 0)
    gap = ("gap", {"omitted_bytes": 7})
    cut = ran(*pieces, gap, ENDED, output_kb=1, on_stdout=heard.append)
    assert (cut.stdout, cut.stderr) == ("x" * 1024, "e" * 1000)
    assert cut.omitted_bytes == 3000 - 1024 + 7
    assert sum(map(len, heard)) == 3000
    assert cut.ok


def test_output_is_not_cut_within_a_character() -> None:
    cut = ran(("stdout", {"text": "€" * 1000}), ENDED, output_kb=1)
    assert cut.stdout == "€" * 341
    assert cut.omitted_bytes == 3000 - 3 * 341


def test_results_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their bytes and, as each takes some memory of its own, by their number."""
    seen = list[Result]()
    monkeypatch.setattr(module, "MOST_OF_RESULTS", 2000)
    large = ran(result("a"), result("b" * 3000), result("c"), ENDED, on_result=seen.append)
    assert [each.text for each in large.results] == ["a", "c"]
    assert large.omitted_bytes > 3000
    assert len(seen) == 3
    many = ran(*[result("a")] * 20, ENDED)
    assert 0 < len(many.results) < 10
    assert many.omitted_bytes > 0
