"""Debian's Prometheus, which watches a deployment with the alert rules that we ship."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
import yaml

from tests.support.deployment import eventually

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
RULES = MONITORING / "rules.yaml"


@cache
def programs() -> Path:
    """Return the folder of `prometheus` and `promtool`."""
    found = subprocess.run(
        [ROOT / "scripts" / "prometheus"], capture_output=True, text=True, timeout=600, check=True
    )
    return Path(found.stdout.strip())


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run promtool to its end."""
    return subprocess.run(
        [programs() / "promtool", *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        found = httpx.get(f"{self.url}/api/v1/alerts", timeout=60).raise_for_status().json()
        alerts = found["data"]["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def value(self, query: str) -> float | None:
        """Return the value of a query that has one; None if it has none yet."""
        found = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=60).json()
        result = found["data"]["result"]
        return float(result[0]["value"][1]) if result else None


@contextmanager
def prometheus(folder: Path, port: int, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Scrape these targets, by their jobs, every second inside the context; no alert waits."""
    rules = re.sub(r"for: \d+m", "for: 0s", RULES.read_text())
    (folder / "rules.yaml").write_text(rules)
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [target]}]}
            for job, target in targets.items()
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                programs() / "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        running = Prometheus(f"http://127.0.0.1:{port}")
        eventually(lambda: _ready(running))
        yield running
    finally:
        process.terminate()
        process.wait(60)


def _ready(server: Prometheus) -> bool:
    try:
        return httpx.get(f"{server.url}/-/ready", timeout=60).is_success
    except httpx.TransportError:
        return False
