"""The beginning of an id stands for it if only one id begins like that."""

import json
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
import typer

from agent_runner import Client
from runner.api.cursors import decode_id
from runner.cli.ids import SHORT, find_sandbox, shortened, whole
from tests.support.answering import Request, reply, served
from tests.unit.client.test_strangers import KEY, LIVES, RUNNING

IDS = (
    "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2",
    "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3df",
    "0199f2a1-c0de-7b20-8000-000000000000",
    "0199f2a1-ffff-7fff-bfff-ffffffffffff",
    "0199f2a2-0000-7000-8000-000000000000",
)


@pytest.fixture
def api() -> Iterator[Client]:
    """Return a client of a server that has executions and sandboxes with these ids."""

    def answer(request: Request) -> None:
        url = urlsplit(request.path)
        kind = LIVES if "/sandboxes" in url.path else RUNNING
        asked = parse_qs(url.query)
        if not asked:
            one = {**kind, "id": url.path.rpartition("/")[2]}
            reply(request, 200, json.dumps(one).encode(), "application/json")
            return
        before = decode_id(asked["cursor"][0])
        assert before is not None
        found = [each for each in sorted(IDS, reverse=True) if UUID(each) < before]
        items = [{**kind, "id": each} for each in found[: int(asked["limit"][0])]]
        page = {"items": items, "next_cursor": None}
        reply(request, 200, json.dumps(page).encode(), "application/json")

    with served(answer) as url, Client(url, KEY) as client:
        yield client


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("0199f2a1-c0de-7b20", IDS[2]),
        ("0199F2A1C0DE7B2", IDS[2]),
        ("0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2", IDS[0]),
        ("0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3df", IDS[1]),
        ("0199f2a1-f", IDS[3]),
        ("0199f2a1-ffff-7fff-bfff-fffffffffff", IDS[3]),
        ("0199f2a2", IDS[4]),
    ],
)
def test_a_beginning_that_one_id_has_stands_for_it(api: Client, given: str, meant: str) -> None:
    assert whole(api, given) == meant


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0199f2a1-c0de-7b1f", f"among them {IDS[1]} and {IDS[0]}: give more"),
        ("0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d", "several"),
        ("0199", "several"),
        ("0199f2a3", "no execution has an id that begins with 0199f2a3"),
        ("ffff", "no execution"),
        ("0000", "no execution"),
    ],
)
def test_one_that_several_have_or_none_is_refused(
    api: Client, given: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        whole(api, given)
    assert ended.value.exit_code == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("given", ["", "019", "latest", "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2f"])
def test_what_begins_no_id_is_left_to_the_api(api: Client, given: str) -> None:
    assert whole(api, given) == given


def test_a_beginning_stands_for_a_sandbox_too(
    api: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_sandbox(api, "0199f2a1-c0de-7b20").id == IDS[2]
    assert find_sandbox(api, IDS[0]).id == IDS[0]
    with pytest.raises(typer.Exit):
        find_sandbox(api, "0199f2a1-c0de-7b1f")
    assert "the ids of several sandboxes begin with" in capsys.readouterr().err


def test_ids_are_shortened_as_far_as_they_differ() -> None:
    far = IDS[2:]
    assert shortened(far) == {each: each[:SHORT] for each in far}
    assert shortened(IDS) == {each: each for each in IDS}
    assert shortened([IDS[0], IDS[0]]) == {IDS[0]: IDS[0][:SHORT]}
    assert shortened([]) == {}
