"""Code that calls LibreChat's tools: by hand, and by LibreChat's own package."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.deployment import NO_POOL, Deployment, build_image, deployment
from tests.support.environments import LIBRECHAT_AGENTS, Environments

SCRIPT = Path(__file__).parents[1] / "support/librechat_calling.mjs"
TOOLS: list[dict[str, Any]] = [
    {"name": name, "description": "", "parameters": {}} for name in ("look-up", "add")
]
BOTH = """
import os
open('left.txt', 'a').write('x')
first, second = await asyncio.gather(look_up(word='a'), look_up(word='b'))
print(first['is'], second['is'])
print(await add(numbers=[1, 2]))
"""
Tool = Callable[..., Any]


@pytest.fixture(scope="module")
def offering(image: None) -> Iterator[Deployment]:
    """Return a deployment whose operator offers it."""
    build_image("librechat")
    with deployment(librechat=True, images=("python", "librechat"), **NO_POOL) as made:
        yield made


@pytest.fixture
def chat(offering: Deployment) -> httpx.Client:
    """Return a connection with a key."""
    base, auth = f"{offering.url}/librechat/exec/", ("key", offering.key("calling"))
    return offering.clients.enter_context(httpx.Client(base_url=base, auth=auth, timeout=180))


def ask(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """Send a request, and return the answer."""
    answer = client.post("programmatic", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def play(client: httpx.Client, code: str, **tools: Tool) -> tuple[dict[str, Any], list[list[str]]]:
    """Run code as LibreChat does; return how it ended, and which tools were called together."""
    answer, rounds = ask(client, code=code, tools=TOOLS), list[list[str]]()
    while answer["status"] == "tool_call_required":
        rounds.append([each["name"] for each in answer["tool_calls"]])
        results = [called(each, tools) for each in answer["tool_calls"]]
        answer = ask(client, continuation_token=answer["continuation_token"], tool_results=results)
    return answer, rounds


def called(call: dict[str, Any], tools: dict[str, Tool]) -> dict[str, Any]:
    """Call a tool, as LibreChat does."""
    try:
        result = tools[call["name"].replace("-", "_")](**call["input"])
    except ValueError as error:
        return {
            "call_id": call["id"],
            "result": None,
            "is_error": True,
            "error_message": str(error),
        }
    return {"call_id": call["id"], "result": result, "is_error": False}


def test_code_calls_tools_one_after_the_other_and_together(chat: httpx.Client) -> None:
    """Calls that the code makes together are asked for together; what it leaves, it leaves once."""
    answer, rounds = play(
        chat,
        BOTH,
        look_up=lambda word: {"is": word.upper()},
        add=lambda numbers: sum(iter(numbers)),
    )
    assert rounds == [["look-up", "look-up"], ["add"]]
    assert (answer["status"], answer["stdout"], answer["stderr"]) == ("completed", "A B\n3\n", "")
    (left,) = answer["files"]
    assert left["name"] == "left.txt"


def test_equal_calls_get_their_results_in_turn(chat: httpx.Client) -> None:
    numbers = iter(range(1, 9))
    code = "print([await look_up(word='x') for _ in range(3)])"
    answer, rounds = play(chat, code, look_up=lambda word: (word, next(numbers))[1])
    assert answer["stdout"] == "[1, 2, 3]\n"
    assert len(rounds) == 3


def test_a_tool_that_fails_raises_in_the_code(chat: httpx.Client) -> None:
    """The code may catch it; if it does not, the model sees where it was."""

    def refuse(word: str) -> None:
        raise ValueError(f"no {word}")

    caught = "try:\n    await look_up(word='a')\nexcept RuntimeError as error:\n    print(error)"
    assert play(chat, caught, look_up=refuse)[0]["stdout"] == "no a\n"
    answer, _ = play(chat, "x = 1\nawait look_up(word='b')", look_up=refuse)
    assert 'File "main.py", line 2' in answer["stderr"]
    assert answer["stderr"].endswith("RuntimeError: no b")


def test_code_that_calls_nothing_ends_at_once(chat: httpx.Client) -> None:
    answer = ask(chat, code="print(6 * 7)", tools=[])
    assert (answer["status"], answer["stdout"]) == ("completed", "42\n")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"code": "1", "tools": [{"name": "a-b"}, {"name": "a_b"}]}, "tools"),
        ({"code": "1", "tools": [{"name": "??"}]}, "tools"),
        ({"code": "1", "lang": "bash"}, "lang"),
        ({"tools": []}, "code"),
        ({"continuation_token": "e30="}, "continuation_token"),
        ({"continuation_token": "??"}, "continuation_token"),
    ],
    ids=["two of a name", "no name", "another language", "no code", "an empty token", "no token"],
)
def test_what_cannot_run_is_refused(chat: httpx.Client, body: dict[str, Any], field: str) -> None:
    refused = chat.post("programmatic", json=body)
    assert refused.status_code == 422, refused.text
    assert field in refused.json()["details"]


def test_a_result_that_is_missing_is_named(chat: httpx.Client) -> None:
    waits = ask(chat, code="await add(numbers=[1])", tools=TOOLS)
    token, (call,) = waits["continuation_token"], waits["tool_calls"]
    refused = chat.post("programmatic", json={"continuation_token": token, "tool_results": []})
    assert refused.status_code == 422
    assert call["id"] in refused.json()["details"]


@pytest.mark.timeout(900)  # npm may install 530 MB for it
def test_its_own_package_calls_tools(offering: Deployment, tmp_path: Path) -> None:
    """`createProgrammaticToolCallingTool` of the unmodified package, with the address alone."""
    base = offering.url.replace("//", f"//key:{offering.key('calling')}@") + "/librechat"
    folder = Environments(tmp_path).node(LIBRECHAT_AGENTS)
    (folder / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
    done = subprocess.run(
        ["node", folder / SCRIPT.name, base],
        check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert "sunny in Oslo, rainy in Bergen" in seen["content"]
    assert sorted(seen["asked"]) == ["Bergen", "Oslo"]
