"""`make audit` asks npm's registry about the console, and says so if it cannot."""

import gzip
import importlib.util
import json
import os
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLAW = {
    "id": 1, "url": "https://example.test/advisories/GHSA-0000-0000-0001", "title": "a flaw",
    "severity": "high", "vulnerable_versions": ">=0", "cwe": [],
    "cvss": {"score": 0, "vectorString": None},
}  # fmt: skip


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def policy() -> dict[str, Any]:
    return tomllib.loads((ROOT / "scripts" / "audit.toml").read_text())


@contextmanager
def registry(
    monkeypatch: pytest.MonkeyPatch, flaws: dict[str, Any] | None
) -> Iterator[list[dict[str, Any]]]:
    """Have npm ask a registry that knows these flaws; with None, it serves no advisories.

    Yields what it was asked about.
    """
    asked: list[dict[str, Any]] = []

    class Registry(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            asked.append(json.loads(body))
            if flaws is None:
                self.send_error(405)
                return
            answer = json.dumps(flaws).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("npm_config_fetch_retries", "0")
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            monkeypatch.delenv(name)
        with tempfile.TemporaryDirectory() as cache:
            # npm remembers flaws by their numbers.
            monkeypatch.setenv("npm_config_cache", cache)
            yield asked
        server.shutdown()


def test_every_package_of_the_console_is_asked_about(
    audit: ModuleType, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry(monkeypatch, {}) as asked:
        step = audit.console(policy)
    assert (step.checked, step.findings) == (True, ())
    lock = json.loads((ROOT / "console" / "package-lock.json").read_text())["packages"]
    names = {path.removeprefix("node_modules/") for path in lock if path}
    assert {name for each in asked for name in each} == names


def test_a_flaw_is_found_unless_the_policy_accepts_it(
    audit: ModuleType, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is accepted and is no longer there is a finding, too."""
    with registry(monkeypatch, {"preact": [FLAW]}):
        assert audit.console(policy).findings == ("preact: GHSA-0000-0000-0001, high",)
        policy["console"]["accepted"] = {"GHSA-0000-0000-0001": "it does not apply"}
        assert audit.console(policy).findings == ()
    with registry(monkeypatch, {}):
        findings = audit.console(policy).findings
    assert findings == ("accepted for nothing: GHSA-0000-0000-0001",)


def test_a_registry_without_advisories_is_no_success(
    audit: ModuleType,
    policy: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is told, and fails a strict audit. Licences were looked at all the same."""
    with registry(monkeypatch, None):
        step = audit.console(policy)
        assert not step.checked
        assert "serves no advisories (it says 405 Method Not Allowed)" in step.summary
        assert "127.0.0.1" not in step.summary
        policy["console"]["exceptions"] = {}
        assert audit.console(policy).findings == ("axe-core: MPL-2.0",)
    assert audit.report([("console", step)], strict=False) == 0
    assert audit.report([("console", step)], strict=True) == 1
    assert "NOT CHECKED" in capsys.readouterr().out


def test_without_npm_nothing_is_looked_up(
    audit: ModuleType, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    step = audit.console(policy)
    assert not step.checked
    assert "npm is not installed" in step.summary
