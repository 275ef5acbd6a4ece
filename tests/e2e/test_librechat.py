"""LibreChat's code interpreter: its routes by hand, and a chat by its own package."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from runner.words.principal import Role
from tests.support.deployment import (
    NO_POOL,
    Deployment,
    bearing,
    build_image,
    deployment,
    eventually,
)
from tests.support.environments import LIBRECHAT_AGENTS, Environments

URL = "/librechat"
ID = re.compile(r"[A-Za-z0-9_-]{21}")
SCRIPT = Path(__file__).parents[1] / "support/librechat.mjs"
"""The package, and what LibreChat's server has beside it."""
ROWS = "a,b\n1,2\n"


@pytest.fixture(scope="module")
def offering(image: None) -> Iterator[Deployment]:
    """Return a deployment whose operator offers it."""
    build_image("librechat")
    with deployment(librechat=True, images=("python", "librechat"), **NO_POOL) as made:
        yield made


@pytest.fixture
def chat(offering: Deployment) -> httpx.Client:
    """Return a connection that presents its key as LibreChat up to 0.8 does."""
    return knowing(offering, offering.key("chat"))


def knowing(made: Deployment, key: str) -> httpx.Client:
    """Return a connection with a key, closed with the deployment."""
    client = httpx.Client(base_url=f"{made.url}{URL}", headers={"X-API-Key": key}, timeout=180)
    return made.clients.enter_context(client)


def upload(client: httpx.Client, **files: str | bytes) -> dict[str, Any]:
    """Upload files by name, and return the answer."""
    form = [("file", (name, content)) for name, content in files.items()]
    answer = client.post("/upload", files=form, data={"kind": "user", "id": "somebody"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def run(client: httpx.Client, code: str, lang: str = "py", **others: Any) -> dict[str, Any]:
    """Run code, and return the answer."""
    body = {"lang": lang, "code": code, "user_id": "somebody", **others}
    answer = client.post("/exec", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def reference(uploaded: dict[str, Any], name: str) -> dict[str, Any]:
    """Return how LibreChat refers to an uploaded file."""
    (file_id,) = (each["fileId"] for each in uploaded["files"] if each["filename"] == name)
    return {"id": file_id, "name": name, "storage_session_id": uploaded["storage_session_id"]}


@pytest.mark.parametrize(
    ("lang", "code"),
    [
        ("py", "print(6 * 7)"),
        ("js", "console.log(6 * 7)"),
        ("ts", "console.log(6 * 7 as number)"),
        ("bash", "echo $((6 * 7))"),
    ],
    ids=["py", "js", "ts", "bash"],
)
def test_code_prints(chat: httpx.Client, lang: str, code: str) -> None:
    answer = run(chat, code, lang)
    assert ID.fullmatch(answer.pop("session_id"))
    assert answer == {"stdout": "42\n", "stderr": "", "files": []}


def test_code_gets_arguments(chat: httpx.Client) -> None:
    answer = run(chat, "import sys; print(sys.argv[1:])", args=["a b", "c"])
    assert answer["stdout"] == "['a b', 'c']\n"


def test_a_file_may_be_called_as_ours_is(chat: httpx.Client) -> None:
    """Code is placed as main.py, unless the user has uploaded one."""
    uploaded = upload(chat, **{"main.py": "word = 'theirs'"})
    files = [reference(uploaded, "main.py")]
    assert run(chat, "import main; print(main.word)", files=files)["stdout"] == "theirs\n"


def test_a_file_that_cannot_be_kept_is_told(chat: httpx.Client) -> None:
    """Its path would be too deep below the session's."""
    deep = "/".join("d" * 31)
    answer = run(chat, f"mkdir -p {deep}; touch {deep}/x here", "bash")
    assert [each["name"] for each in answer["files"]] == ["here"]
    assert "was not kept: its path must not have more than 33 parts" in answer["stderr"]


def test_what_is_not_kept_is_said(chat: httpx.Client) -> None:
    """A model would else tell its user of a file that nobody can download."""
    answer = run(chat, "touch kept.txt; ln -s /etc/passwd link; mkfifo pipe", "bash")
    assert [each["name"] for each in answer["files"]] == ["kept.txt"]
    assert [each.partition(": ")[0] for each in answer["stderr"].splitlines()] == ["files"] * 2


def test_many_files_of_one_session_go_on_to_a_run(chat: httpx.Client) -> None:
    names = [f"{n}.txt" for n in range(90)]
    uploaded = upload(chat, **{name: name for name in names})
    files = [reference(uploaded, name) for name in names]
    assert run(chat, "ls | wc -l", "bash", files=files)["stdout"] == "91\n"


def test_a_failure_is_in_stderr(chat: httpx.Client) -> None:
    """The program's own words; and ours, if it was ended."""
    assert "ZeroDivisionError" in run(chat, "1 / 0")["stderr"]
    slow = run(chat, "print(1, flush=True)\nwhile True: pass", timeout=1500)
    assert slow["stdout"] == "1\n"
    assert slow["stderr"] == "The program reached its time limit."


def test_files_go_in_and_on_to_the_next_run(chat: httpx.Client) -> None:
    """Another run gets a run's files in /mnt/data by reference, and may change them."""
    uploaded = upload(chat, **{"in.csv": ROWS})
    first = run(
        chat,
        "import os; os.mkdir('/mnt/data/sub'); print(os.getcwd(), os.listdir())\n"
        "open('/mnt/data/sub/out.csv', 'w').write(open('in.csv').read() * 2)",
        files=[reference(uploaded, "in.csv")],
    )
    assert first["stdout"].startswith("/mnt/data ")
    (left,) = first["files"]
    assert left["name"] == left["path"] == "sub/out.csv"
    assert ID.fullmatch(left["id"])
    assert left["session_id"] == left["storage_session_id"] == first["session_id"]
    changed = run(chat, "echo 3,4 >> sub/out.csv; cat sub/out.csv", "bash", files=[left])
    assert changed["stdout"] == ROWS * 2 + "3,4\n"
    (again,) = changed["files"]
    assert (again["name"], again["id"]) == (left["name"], left["id"])
    assert again["session_id"] != left["session_id"]
    for each, content in ((left, ROWS * 2), (again, ROWS * 2 + "3,4\n")):
        got = chat.get(f"/download/{each['session_id']}/{each['id']}?kind=user&id=somebody")
        assert got.text == content
        assert got.headers["content-type"] == "application/octet-stream"
        assert got.headers["content-disposition"].startswith("attachment")


def test_a_session_lists_its_files(chat: httpx.Client) -> None:
    """By the names in which older versions look for them, and one by one."""
    uploaded = upload(chat, **{"b.csv": ROWS, "a/a.txt": "1"})
    session = uploaded["session_id"]
    assert (uploaded["message"], uploaded["succeeded"]) == ("success", 2)
    listed = chat.get(f"/files/{session}?detail=full").json()
    assert [each["metadata"]["original-filename"] for each in listed] == ["a/a.txt", "b.csv"]
    ids = {each["filename"]: each["fileId"] for each in uploaded["files"]}
    assert listed[1]["name"] == f"{session}/{ids['b.csv']}.csv"
    assert (listed[1]["size"], listed[1]["session_id"]) == (len(ROWS), session)
    assert datetime.fromisoformat(listed[1]["lastModified"])
    assert chat.get(f"/sessions/{session}/objects/{ids['b.csv']}").json() == listed[1]


def test_files_are_the_tenants_own_and_expire(offering: Deployment, chat: httpx.Client) -> None:
    """They count as what they are, also those whose length showed only at their end."""

    def streamed() -> Iterator[bytes]:
        yield b'--mark\r\nContent-Disposition: form-data; name="file"; filename="s.txt"\r\n\r\n'
        yield b"12345\r\n--mark--\r\n"

    client = knowing(offering, offering.key("chat-counted"))
    headers = {"Content-Type": "multipart/form-data; boundary=mark"}
    answer = client.post("/upload", content=streamed(), headers=headers)
    assert answer.status_code == 200, answer.text
    session = answer.json()["session_id"]
    (stored,) = offering.http("chat-counted").get("/v1/files").json()["items"]
    assert (stored["path"], stored["size"]) == (f"librechat/{session}/s.txt", 5)
    kept = datetime.fromisoformat(stored["expires_at"]) - datetime.fromisoformat(
        stored["created_at"]
    )
    assert 23 < kept.total_seconds() / 3600 < 49
    (used,) = offering.sql(
        "SELECT bytes, objects FROM storage_usage JOIN tenants USING (tenant_id) "
        "WHERE name = 'chat-counted'"
    )
    assert used == {"bytes": 5, "objects": 1}


WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "a language that is not offered": ({"lang": "cpp"}, 422, "py, js, ts, bash"),
    "no code": ({"code": ""}, 422, "body.code"),
    "a path upwards": (
        {"files": [{"id": "x", "name": "../x", "session_id": "y"}]}, 422, "body.files.0.name",
    ),
    "a file that is not there": (
        {"files": [{"id": "x", "name": "x", "session_id": "y"}]}, 404, "upload it again",
    ),
    "a file of no session": ({"files": [{"id": "x", "name": "x"}]}, 404, "upload it again"),
    "more time than the tenant may have": ({"timeout": 10**8}, 422, "timeout_s"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_refused_in_their_shape(chat: httpx.Client, name: str) -> None:
    others, status, says = WRONG[name]
    refused = chat.post("/exec", json={"lang": "py", "code": "1", **others})
    assert refused.status_code == status, refused.text
    assert set(refused.json()) == {"error", "details"}
    assert says in refused.json()["details"]


HOSTILE = ("../x", "/etc/passwd", "a//b", "a\x01b", "a/./b", "", "x" * 300)


@pytest.mark.parametrize("name", HOSTILE, ids=[repr(each)[:20] for each in HOSTILE])
def test_a_hostile_file_name_is_refused(offering: Deployment, name: str) -> None:
    client = knowing(offering, offering.key("chat-hostile"))
    body = (
        b'--mark\r\nContent-Disposition: form-data; name="file"; filename="'
        + name.encode() + b'"\r\n\r\nx\r\n--mark--\r\n'
    )  # fmt: skip
    headers = {"Content-Type": "multipart/form-data; boundary=mark"}
    refused = client.post("/upload", content=body, headers=headers)
    assert refused.status_code == 400, refused.text
    assert offering.http("chat-hostile").get("/v1/files").json()["items"] == []


def test_an_upload_without_a_file_is_refused(chat: httpx.Client) -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"json": {}}, {"files": {"other": ("a", "b")}}, {"content": b"x" * 10},
    )  # fmt: skip
    for sent in wrong:
        refused = chat.post("/upload", **sent)
        assert refused.status_code == 400, refused.text


def test_a_key_is_needed_and_comes_in_three_ways(offering: Deployment) -> None:
    """It may be a header, the address's password or a bearer token. The header comes first."""
    key = offering.key("chat")
    session = upload(knowing(offering, key), a="1")["session_id"]
    url = f"{offering.url}{URL}/files/{session}"
    bad = {"X-API-Key": "rk_wrong", "Authorization": f"Bearer {key}"}
    assert httpx.get(url, headers={"X-API-Key": key}).status_code == 200
    assert httpx.get(url, auth=("key", key)).status_code == 200
    assert httpx.get(url, headers={"Authorization": f"Bearer {key}"}).status_code == 200
    for refused in (httpx.get(url), httpx.get(url, headers=bad), httpx.get(url, auth=("k", "x"))):
        assert refused.status_code == 401
        assert set(refused.json()) == {"error", "details"}
    assert httpx.get(f"{offering.url}/v1/me", headers={"X-API-Key": key}).status_code == 401


def test_code_is_cancelled_when_its_client_hangs_up(offering: Deployment) -> None:
    api, key = offering.client("chat-leaves"), offering.key("chat-leaves")

    async def leave() -> None:
        body = {"lang": "py", "code": "import time; time.sleep(100)"}
        async with httpx.AsyncClient(auth=("key", key), timeout=180) as client:
            sent = asyncio.create_task(client.post(f"{offering.url}{URL}/exec", json=body))
            await asyncio.to_thread(eventually, lambda: api.list(state=["running"])[0])
            sent.cancel()
            await asyncio.gather(sent, return_exceptions=True)

    asyncio.run(leave())
    eventually(lambda: not api.list(state=["running"])[0])
    assert api.list(limit=1)[0][0].state == "cancelled"


def test_it_is_off_by_default(shared: Deployment) -> None:
    with bearing(shared.url, shared.key("chat-off")) as client:
        assert client.post(f"{URL}/exec", json={"lang": "py", "code": "1"}).status_code == 404


@pytest.mark.timeout(900)  # npm may install 530 MB for it
def test_its_own_package_works_with_the_address_alone(offering: Deployment, tmp_path: Path) -> None:
    """The key is in LIBRECHAT_CODE_BASEURL, and nothing else is set."""
    base = offering.url.replace("//", f"//key:{offering.key('chat-package')}@") + URL
    folder = Environments(tmp_path).node(LIBRECHAT_AGENTS)
    (folder / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
    done = subprocess.run(
        ["node", folder / SCRIPT.name, base],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["uploaded"]["files"][0]["filename"] == "in.csv"
    assert datetime.fromisoformat(seen["lastModified"])
    assert [each["name"] for each in seen["python"]["files"]] == ["out.csv"]
    assert "4 /mnt/data/out.csv" in seen["bash"]["content"]
    assert seen["content"] == ROWS * 2


def test_a_viewer_may_read_files_and_nothing_else(offering: Deployment) -> None:
    """The table of all routes is in tests/security/test_librechat.py."""
    session = upload(knowing(offering, offering.key("chat")), a="1")["session_id"]
    viewer = knowing(offering, offering.key("chat", Role.VIEWER))
    assert viewer.get(f"/files/{session}").status_code == 200
    assert viewer.post("/exec", json={"lang": "py", "code": "1"}).status_code == 403
