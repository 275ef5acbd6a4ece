"""The commands and programs on the pages do what the pages say, against one deployment."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runner.api.requests import Submission
from runner.quotas.sizes import load_sizes
from tests.support.deployment import Deployment
from tests.support.pages import ROOT, Block, blocks

README = ROOT / "README.md"
SDK = ROOT / "sdk/python/README.md"
SDK_PRINTS = (
    "0 ['1', '2', '3']\n42\n",
    "one\ntwo\n",
    "stdout HELLO\nended 0\n",
    "succeeded 2\nacme []\n",
)
PLAIN = [each for each in blocks("sh") if not each.mark]
STRICT_CURL = '#!/bin/sh\nexec /usr/bin/curl --fail-with-body "$@"\n'
"""By default, curl counts a refusal as a success."""

HAS = """
runner audit export kept.ndjson >&2
runner signing show > deployment.pub
runner members add --tenant acme --email grace@example.com --role viewer
"""
"""The page assumes earlier exports and the public key; `TOKEN` holds an invitation."""


COUNT = """
import collections, os, sys
assert (sys.argv[1:], os.environ["LANG"]) == (["--top", "10"], "en")
words = collections.Counter(sys.stdin.read().split())
open("counted.txt", "w").write(str(words.most_common()))
"""


@dataclass
class Reader:
    """Somebody who types what a page says, and has what its text assumes."""

    folder: Path
    environment: dict[str, str]

    def type(self, block: Block) -> str:
        """Run a block and return what it printed."""
        command = {
            "sh": ["bash", "-euo", "pipefail", "-c", block.text],
            "python": [sys.executable, "-c", block.text],
        }[block.language]
        ran = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{block}\n{block.text}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout


@pytest.fixture(scope="module")
def reader(shared: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Return a reader in the tenant `acme`, with an execution, its files and the owner's logins."""
    folder = tmp_path_factory.mktemp("reader")
    key, client = shared.key("acme"), shared.client("acme")
    ended = client.run(language="python", code="print(1)")
    client.put_secret("example-token", "a value of eight bytes or more")
    services, settings = shared.stack.services, shared.stack.settings
    programs = folder / "bin"
    programs.mkdir()
    (programs / "curl").write_text(STRICT_CURL)
    (programs / "curl").chmod(0o755)
    (folder / "report.csv").write_text("a,b\n1,2\n")
    (folder / "words.txt").write_text("b\na\nb\n")
    (folder / "count.py").write_text(COUNT)
    made = Reader(
        folder,
        {
            "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "RUNNER_URL": shared.url,
            "RUNNER_API_KEY": key,
            "RUNNER_STATE_DIR": str(settings.state_dir),
            "RUNNER_DATABASE_OWNER_URL": services.owner_url,
            "RUNNER_DATABASE_OPERATOR_URL": services.operator_url,
            "RUNNER_DATABASE_API_URL": services.api_url,
            "RUNNER_DATABASE_WORKER_URL": services.worker_url,
            "RUNNER_REDIS_URL": services.redis_url,
            "RUNNER_DOCKER_URL": settings.docker_url,
            "ID": ended.id,
        },
    )
    made.environment["TOKEN"] = made.type(Block("what the reader has", 1, "sh", "", HAS)).strip()
    return made


@pytest.mark.parametrize("block", PLAIN, ids=str)
def test_what_a_page_says_to_type_works(block: Block, reader: Reader) -> None:
    reader.type(block)


def submission(block: Block) -> dict[str, Any]:
    """Return the submission that a block is or belongs to; nothing if it is something else."""
    try:
        held = json.loads(block.text)
    except ValueError:
        return {}
    return held if held.keys() <= Submission.model_fields.keys() else {}


EXAMPLES = [each for each in blocks("json") if not each.mark and submission(each)]


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_a_submission_that_a_page_shows_is_accepted(block: Block, shared: Deployment) -> None:
    """It needs only the shipped ceiling, and the file that the page stored before."""
    shared.client("acme").files.put("data/report.csv", b"a,b\n1,2\n")
    shown = submission(block)
    body = shown if "command" in shown or "code" in shown else {"command": ["true"], **shown}
    answer = shared.http("acme").post("/v1/executions", json=body)
    assert answer.status_code == 202, answer.text


def test_pages_show_submissions() -> None:
    """Without any, the test above would prove nothing."""
    assert len(EXAMPLES) >= 5


def test_the_readmes_program_prints_what_it_says(reader: Reader) -> None:
    [program, kept] = blocks("python", README)
    assert reader.type(program).splitlines()[-1] == 'succeeded b\'{"a":4,"b":6}\''
    assert reader.type(kept) == "0 b'1\\n2\\n3\\n'\n[1, 2, 3]\n"


@pytest.mark.parametrize(
    ("block", "printed"), [*zip(blocks("python", SDK), SDK_PRINTS, strict=True)], ids=str
)
def test_a_program_of_the_sdks_readme_prints_what_it_says(
    reader: Reader, block: Block, printed: str
) -> None:
    assert reader.type(block) == printed


def test_the_readmes_command_saves_what_the_program_makes(reader: Reader) -> None:
    [command] = [each for each in blocks("sh", README) if "runner run" in each.text]
    reader.type(command)
    assert (reader.folder / "results/counted.txt").read_text() == "[('b', 2), ('a', 1)]"


def test_the_readmes_request_is_answered_as_shown(reader: Reader) -> None:
    [request] = [each for each in blocks("sh", README) if each.text.startswith("curl")]
    [shown] = blocks("json", README)
    answer = json.loads(reader.type(request))
    expected = json.loads(re.sub(r', "…": "…"', "", shown.text))
    assert answer["state"] == expected["state"]
    for name in ("reason", "exit_code"):
        assert answer["result"][name] == expected["result"][name]
    # The page leaves a part of it out.
    assert expected["result"]["stdout"].items() <= answer["result"]["stdout"].items()
    assert set(answer["result"]["usage"]) == set(expected["result"]["usage"])


def test_the_sizes_are_those_of_the_profiles() -> None:
    for page in (README, ROOT / "docs/operations/configuration.md"):
        shown = {
            row[0]: [float(number) for number in re.findall(r"[\d.]+", row[1])]
            for row in re.findall(
                r"^\| (nano|small|medium|large)\b.*?\| (.*) \|$", page.read_text(), re.MULTILINE
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


def test_a_block_that_fails_is_found(reader: Reader) -> None:
    """The control: a command in the middle of others that the API refuses."""
    text = 'curl -s "$RUNNER_URL/v1/nothing"\ntrue\n'
    with pytest.raises(AssertionError, match="401"):
        reader.type(Block("control", 1, "sh", "", text))
