"""What the README tells a newcomer to type works as it stands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx

from runner.quotas.sizes import load_sizes
from tests.support.deployment import Deployment

ROOT = Path(__file__).resolve().parents[2]
SIZE = re.compile(r"^\| (nano|small|medium|large)\b.*?\| (.*) \|$", re.MULTILINE)
README = (ROOT / "README.md").read_text()


def block(language: str) -> str:
    """Return the README's last block of a language."""
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return found[-1]


def test_the_python_example_runs(shared: Deployment) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", block("python")],
        env={**os.environ, "RUNNER_URL": shared.url, "RUNNER_API_KEY": shared.key("reader")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ran.stdout.splitlines()[-1] == 'succeeded b\'{"a":4,"b":6}\''


def test_the_curl_example_is_answered_as_shown(shared: Deployment) -> None:
    command = block("sh")
    path = re.search(r"\$RUNNER_URL(\S+)\"", command)
    body = re.search(r"-d '(.*)'", command)
    assert path is not None
    assert body is not None
    answer = httpx.post(
        f"{shared.url}{path[1]}",
        content=body[1],
        headers={
            "Authorization": f"Bearer {shared.key('reader')}",
            "Content-Type": "application/json",
        },
        timeout=60,
    ).json()
    shown = json.loads(re.sub(r', "…": "…"', "", block("json")))
    assert answer["state"] == shown["state"]
    for name in ("reason", "exit_code", "stdout"):
        assert answer["result"][name] == shown["result"][name]
    assert set(answer["result"]["usage"]) == set(shown["result"]["usage"])


def test_the_sizes_are_those_of_the_profiles() -> None:
    for document in (README, (ROOT / "docs/operations/configuration.md").read_text()):
        shown = {
            row[0]: [float(number) for number in re.findall(r"[\d.]+", row[1])]
            for row in re.findall(
                r"^\| (nano|small|medium|large)\b.*?\| (.*) \|$", document, re.MULTILINE
            )
        }
        assert shown == {
            name: [
                size.cpu,
                *_binary(size.memory_mb),
                size.pids,
                *_binary(size.disk_mb),
                size.timeout_s,
                *_binary(size.output_kb),
            ]
            for name, size in load_sizes(ROOT / "profiles").items()
        }


def _binary(amount: int) -> list[float]:
    return [amount / 1024 if amount >= 1024 else amount]
