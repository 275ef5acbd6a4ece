"""`POST /run_code` with the requests that verl sends, and what it reads of the answers."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from runner.words.principal import Role
from tests.support.deployment import NO_POOL, Deployment, bearing, deployment, eventually
from tests.support.pages import ROOT, blocks

PAGE = ROOT / "docs/integrations/sandbox-fusion.md"
URL = "/run_code"


@pytest.fixture(scope="module")
def offering(image: None) -> Iterator[Deployment]:
    """Return a deployment whose operator offers it."""
    with deployment(sandbox_fusion=True, **NO_POOL) as made:
        yield made


def run(made: Deployment, code: str, *, key: str | None = None, **others: Any) -> httpx.Response:
    """Send what verl sends: the key is in the address alone."""
    payload = {
        "compile_timeout": 10, "run_timeout": 20, "code": code, "stdin": None,
        "memory_limit_MB": 1024, "language": "python", "files": {}, "fetch_files": [], **others,
    }  # fmt: skip
    address = made.url.replace("//", f"//key:{key or made.key('fusion')}@")
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    return httpx.post(f"{address}{URL}", content=json.dumps(payload), headers=headers, timeout=180)


def test_a_program_reads_stdin_and_prints(offering: Deployment) -> None:
    answer = run(offering, "print(int(input()) * 2)", stdin="21")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body.pop("run_result").pop("execution_time") > 0
    ran = answer.json()["run_result"]
    del ran["execution_time"]
    assert ran == {"status": "Finished", "return_code": 0, "stdout": "42\n", "stderr": ""}
    assert body == {
        "status": "Success", "message": "", "compile_result": None, "executor_pod_name": None,
        "files": {},
    }  # fmt: skip


FAILS: dict[str, tuple[str, dict[str, Any], str, int | None, str]] = {
    "an error": ("1 / 0", {}, "Finished", 1, "ZeroDivisionError"),
    "an exit code": ("import sys; sys.exit(3)", {}, "Finished", 3, ""),
    "a signal": ("import os; os.kill(os.getpid(), 11)", {}, "Finished", -11, ""),
    "memory": ("x = bytearray(2**30); x[::4096] = b'x' * (2**18)",
               {"memory_limit_MB": 64}, "Finished", -9, ""),
    "time": ("while True: pass", {"run_timeout": 1}, "TimeLimitExceeded", None, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILS)
def test_a_program_that_fails_is_told_from_a_service_that_fails(
    offering: Deployment, name: str
) -> None:
    code, others, status, return_code, stderr = FAILS[name]
    body = run(offering, code, **others).json()
    assert body["status"] == "Failed"
    assert body["message"]
    assert (body["run_result"]["status"], body["run_result"]["return_code"]) == (
        status, return_code,
    )  # fmt: skip
    assert stderr in body["run_result"]["stderr"]


def test_files_go_in_and_out(offering: Deployment) -> None:
    """Those that were not asked for are not kept."""
    body = run(
        offering,
        "open('out.txt', 'w').write(open('in/a.txt').read().upper()); open('b.txt', 'w')",
        files={"in/a.txt": "YWJj", "skipped": None},
        fetch_files=["out.txt", "missing.txt"],
    ).json()
    assert body["files"] == {"out.txt": "QUJD"}
    run(offering, "open('left.txt', 'w')")
    api = offering.client("fusion")
    assert api.artifacts(api.list(limit=1)[0][0].id) == []


def test_other_languages_run_or_are_refused_by_name(offering: Deployment) -> None:
    bash = run(offering, "echo $((6 * 7))", language="bash").json()
    assert bash["run_result"]["stdout"] == "42\n"
    refused = run(offering, "int main() {}", language="cpp")
    assert refused.status_code == 422
    assert "python, nodejs, bash" in refused.json()["errors"][0]["message"]


WRONG: dict[str, dict[str, Any]] = {
    "a path upwards": {"files": {"../x": ""}},
    "an absolute path": {"files": {"/etc/passwd": ""}},
    "bad base64": {"files": {"x": "!"}},
    "more time than the tenant may have": {"run_timeout": 10_000},
    "more memory than the tenant may have": {"memory_limit_MB": 1_000_000},
    "text for a number": {"run_timeout": "10"},
    "a path upwards to fetch": {"fetch_files": ["../x"]},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_refused(offering: Deployment, name: str) -> None:
    refused = run(offering, "1", **WRONG[name])
    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"]


def test_a_key_is_needed_and_its_role_counts(offering: Deployment) -> None:
    """Basic authentication opens this route alone; a browser is never asked for a password."""
    assert run(offering, "1", key="rk_wrong").status_code == 401
    refused = httpx.post(f"{offering.url}{URL}", json={"code": "1", "language": "python"})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    viewer = offering.http("fusion", Role.VIEWER)
    assert viewer.post(URL, json={"code": "1", "language": "python"}).status_code == 403
    key = offering.key("fusion")
    assert httpx.get(f"{offering.url}/v1/me", auth=("key", key)).status_code == 401
    with bearing(offering.url, key) as client:
        assert client.get("/v1/me").status_code == 200, "the control"


def test_output_and_files_need_the_permissions_to_read_them(offering: Deployment) -> None:
    """Nothing runs for a key that lacks them; the last key is the control."""
    owner, wanted = offering.http("fusion-blind"), {"fetch_files": ["a.txt"]}
    code, permissions = "open('a.txt', 'w').write('x'); print(1)", list[str]()
    for more, lacks, lacks_for_files in (
        ("execution:create", "execution:read", "execution:read"),
        ("execution:read", None, "artifact:read"),
        ("artifact:read", None, None),
    ):
        permissions.append(more)
        asked = {"name": more, "role": "owner", "permissions": permissions}
        key = owner.post("/v1/keys", json=asked).json()["token"]
        for missing, others in ((lacks, {}), (lacks_for_files, wanted)):
            before = len(owner.get("/v1/executions").json()["items"])
            answer = run(offering, code, key=key, **others)
            if missing is None:
                assert answer.json()["run_result"]["stdout"] == "1\n", answer.text
            else:
                assert answer.status_code == 403, answer.text
                assert answer.json()["detail"] == f"this key lacks the permission {missing}"
                assert len(owner.get("/v1/executions").json()["items"]) == before
    assert answer.json()["files"] == {"a.txt": "eA=="}


def test_code_is_cancelled_when_its_client_hangs_up(offering: Deployment) -> None:
    api = offering.client("fusion")

    async def leave() -> None:
        body = {"code": "import time; time.sleep(100)", "language": "python", "run_timeout": 110}
        async with httpx.AsyncClient(auth=("key", offering.key("fusion")), timeout=180) as client:
            sent = asyncio.create_task(client.post(f"{offering.url}{URL}", json=body))
            running = asyncio.to_thread(eventually, lambda: api.list(state=["running"])[0])
            await running
            sent.cancel()
            await asyncio.gather(sent, return_exceptions=True)

    asyncio.run(leave())
    eventually(lambda: not api.list(state=["running"])[0])
    assert api.list(limit=1)[0][0].state == "cancelled"


def test_it_is_off_by_default(shared: Deployment) -> None:
    with bearing(shared.url, shared.key("fusion-off")) as client:
        assert client.post(URL, json={"code": "1", "language": "python"}).status_code == 404


def test_the_page_shows_what_is_sent_and_answered(offering: Deployment) -> None:
    asked, answered = (json.loads(each.text) for each in blocks("json", PAGE))
    body = run(offering, **asked).json()
    body["run_result"]["execution_time"] = answered["run_result"]["execution_time"]
    assert body == answered
