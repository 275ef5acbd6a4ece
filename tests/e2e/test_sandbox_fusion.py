"""`POST /run_code` with the requests that verl sends, and what it reads of the answers."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
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
from tests.support.environments import Environments
from tests.support.pages import ROOT, blocks

PAGE = ROOT / "docs/integrations/sandbox-fusion.md"
URL = "/run_code"
VERL_CLIENT = ROOT / "tests/support/verl_client.py"
VERL = "--no-deps verl==0.9.1 packaging requests certifi charset-normalizer idna urllib3"
"""Without what it needs to train: torch, Ray and others."""


@pytest.fixture(scope="module")
def offering(image: None) -> Iterator[Deployment]:
    """Return a deployment whose operator offers it."""
    build_image("code")
    with deployment(sandbox_fusion=True, images=("python", "code"), **NO_POOL) as made:
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
    refused = run(offering, "class A {}", language="java")
    assert refused.status_code == 422
    assert "python, nodejs, typescript, bash, cpp" in refused.json()["errors"][0]["message"]


ADDS = """
#include <fstream>
#include <iostream>
int main() { int a, b; std::cin >> a >> b; std::ofstream("out.txt") << a + b; std::cout << a + b; }
"""


def test_cpp_is_compiled_and_run(offering: Deployment) -> None:
    """A file that it leaves is fetched; neither program nor source is."""
    body = run(offering, ADDS, language="cpp", stdin="2 3", fetch_files=["*"]).json()
    assert body["status"] == "Success", body
    assert (body["compile_result"]["return_code"], body["run_result"]["stdout"]) == (0, "5")
    assert body["files"] == {"out.txt": "NQ=="}


SPIN = """
constexpr int spin(int n) {
  for (int i = 0; i < 200000; i++) for (int j = 0; j < 200000; j++) n++;
  return n;
}
"""
SLOW = SPIN + "".join(f"constexpr int spun{n} = spin({n});\n" for n in range(100)) + "int main() {}"
"""A compiler computes each value until it has done as much as it may, and then the next one."""


@pytest.mark.parametrize(
    ("code", "timeout", "status"),
    [("a=b", 10, "Finished"), (SLOW, 0.5, "TimeLimitExceeded")],
    ids=["an error", "time"],
)
def test_cpp_that_does_not_compile_is_told_from_cpp_that_fails(
    offering: Deployment, code: str, timeout: float, status: str
) -> None:
    """It is not run. The last line is the control: a program that fails has been compiled."""
    body = run(offering, code, language="cpp", compile_timeout=timeout).json()
    assert (body["status"], body["run_result"]) == ("Failed", None)
    assert body["compile_result"]["status"] == status
    assert body["compile_result"]["return_code"] == (1 if status == "Finished" else None)
    failed = run(offering, "int main() { return 7; }", language="cpp").json()
    assert failed["compile_result"]["return_code"] == 0
    assert failed["run_result"]["return_code"] == 7


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


def test_verls_own_client_reads_each_kind_of_end(offering: Deployment, tmp_path: Path) -> None:
    """Unmodified, with the address alone. True, False, and its numbers for each failure."""
    python = Environments(tmp_path).python(VERL)
    address = offering.url.replace("//", f"//key:{offering.key('fusion-verl')}@") + URL
    done = subprocess.run(
        [python, VERL_CLIENT, address], capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "results": {
            "right and wrong": [True, False], "an error": [-2], "time": [-3],
            "a compiler's error": [-4], "a function": [True],
        },
        "statuses": {
            "right and wrong": ["success", "wrong_answer"], "an error": ["runtime_error"],
            "time": ["timeout"], "a compiler's error": ["compile_error"],
            "a function": ["success"],
        },
        "score": 0.5,
    }  # fmt: skip


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
