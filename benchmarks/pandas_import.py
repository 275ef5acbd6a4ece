"""`import pandas` and one table: in a new sandbox, in one that waits, in a loaded one.

Usage: `python -m benchmarks.pandas_import --rounds 10`.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Figures, Sheet, arguments, deployment, publish
from runner.base import telemetry

PROGRAM = {
    "language": "python",
    "image": "data",
    "code": "import pandas as pd; print(len(pd.DataFrame({'a': range(100)}).describe()))",
    "wait_s": 60,
}
NO_POOL = {"pool": 0, "pool_max": 0}
POOL = {"pool": 4, "pool_max": 4, "images": ("data", "python")}
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cold: nothing waits": (NO_POOL, {}),
    "warm: a sandbox waits, a new interpreter": (POOL, {"interpreter": "fresh"}),
    "loaded: its interpreter has imported pandas": (POOL, {}),
}


@dataclass(frozen=True)
class Import:
    """One row."""

    row: str
    figures: Figures


async def measure(rounds: int) -> dict[str, Any]:
    """Measure each row in a deployment of its own."""
    rows = []
    for row, (settings, body) in ROWS.items():
        took = []
        async with deployment(**settings) as deployed:
            for _ in range(rounds):
                if settings["pool"]:
                    await deployed.settled(settings["pool"])
                caller = await deployed.caller()
                took.append(await caller.expect({**PROGRAM, **body}, "8\n"))
                caller.close()
        rows.append(Import(row, Figures.of(took)))
    return {"rows": rows}


def sheet(results: dict[str, Any]) -> Sheet:
    """Return the figures as text for people."""
    shown = Sheet("import pandas, ms", "median", "p95")
    for each in results["rows"]:
        shown.add_row(each.row, str(each.figures.median), str(each.figures.p95))
    return shown


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, rounds=10)
    telemetry.configure("error", json=False)
    results = asyncio.run(measure(given.rounds))
    publish(given.json, results, sheet(results))


if __name__ == "__main__":
    main()
