"""Does the response time reveal another tenant's id? Another's and an unknown one take turns.

For each route that takes an id, on one deployment in one run: the median time of the answer for
another tenant's id and for an unknown one, their ratio, and how often the first was slower than the
other (in half of the cases, if time reveals nothing). Prints a table and a line of JSON. Usage:
`python benchmarks/oracle.py [ROUNDS]`, within `scripts/with-docker`.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from anyio.from_thread import start_blocking_portal
from pydantic import SecretStr
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from runner.base import telemetry
from runner.base.settings import Settings
from runner.cli.demo import temporary_state
from runner.embedded.stack import stack
from runner.quotas.sizes import load_sizes
from runner.store.db import Database
from runner.tenants.tenancy import create_key
from runner.words.ids import new_id
from runner.words.principal import Role, Tier

ROUNDS = 300
ROUTES = (
    ("GET", "/v1/executions/{}"),
    ("POST", "/v1/executions/{}/cancel"),
    ("GET", "/v1/executions/{}/events"),
    ("GET", "/v1/executions/{}/artifacts"),
    ("GET", "/v1/executions/{}/artifacts/out.txt"),
    ("GET", "/v1/executions/{}/receipt"),
    ("GET", "/v1/executions/{}/explanation"),
    ("GET", "/v1/keys/{}"),
    ("DELETE", "/v1/keys/{}"),
)


@contextmanager
def deployment() -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Yield two tenants' connections to a private deployment."""
    with (
        temporary_state(Settings()) as settings,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            stack(settings.model_copy(update={"port": 0}), ephemeral=True)
        ) as running,
    ):
        portal.call(running.ready)
        large = load_sizes(settings.profiles_path)["large"]

        async def key(tenant: str) -> str:
            async with Database(SecretStr(running.services.owner_url), max_size=1) as owner:
                made = await create_key(
                    owner, tenant=tenant, role=Role.OWNER, name="bench", max_limits=large,
                    tier=Tier.ENTERPRISE,
                )  # fmt: skip
            return made.token

        with (
            connected(running.url, portal.call(key, "ours")) as ours,
            connected(running.url, portal.call(key, "theirs")) as theirs,
        ):
            yield ours, theirs


def connected(url: str, token: str) -> httpx.Client:
    """Return a connection with a key."""
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)


def timed(client: httpx.Client, method: str, path: str) -> float:
    """Return the microseconds until a 404."""
    began = time.perf_counter()
    answer = client.request(method, path)
    took = time.perf_counter() - began
    if answer.status_code != httpx.codes.NOT_FOUND:
        raise RuntimeError(f"{method} {path}: {answer.status_code}")
    return took * 1e6


def main() -> None:
    """Measure and print."""
    telemetry.configure("error", json=False)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    table = Table(
        Column("route", no_wrap=True), "theirs, µs", "nobody's, µs", "ratio", "theirs slower"
    )
    found = {}
    with deployment() as (ours, theirs):
        program = {"command": ["sh", "-c", "echo x > out.txt"], "size": "nano", "wait_s": 30}
        ran = theirs.post("/v1/executions", json=program).json()["id"]
        key = theirs.get("/v1/keys").json()["items"][0]["id"]
        for method, route in track(ROUTES, console=Console(stderr=True)):
            theirs_id = key if "/keys/" in route else ran
            nobodys_id = new_id()
            pairs = []
            for number in range(rounds):
                paths = [route.format(theirs_id), route.format(nobodys_id)]
                # They take turns at being first, so that neither gains from caches that the first
                # one fills.
                order = (0, 1) if number % 2 else (1, 0)
                took = {which: timed(ours, method, paths[which]) for which in order}
                pairs.append((took[0], took[1]))
            medians = [statistics.median(each) for each in zip(*pairs, strict=True)]
            slower = sum(one > other for one, other in pairs) / rounds
            found[f"{method} {route}"] = {
                "theirs_us": round(medians[0]), "nobodys_us": round(medians[1]),
                "ratio": round(medians[0] / medians[1], 3), "theirs_slower": round(slower, 3),
            }  # fmt: skip
            row = found[f"{method} {route}"]
            table.add_row(f"{method} {route}", *map(str, row.values()))
    Console().print(table)
    print(json.dumps({"rounds": rounds, "routes": found}))


if __name__ == "__main__":
    main()
