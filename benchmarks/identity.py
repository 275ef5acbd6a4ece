"""The cost of authenticating a caller, and whether the time tells if an account exists.

On one deployment in one run, each kind in turn: `GET /v1/me` by key, by session and by an identity
provider's token; then logins with a wrong password, for an account and for an unknown address.
Prints a table and a line of JSON. Usage: `scripts/with-docker .venv/bin/python -m
benchmarks.identity [ROUNDS]`.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import httpx
from rich.console import Console
from rich.table import Table

from runner.base import telemetry
from tests.support.deployment import Deployment, bearing, deployment
from tests.support.issuers import AUDIENCE, new_key, provider
from tests.support.people import Person, joined

ROUNDS = 300
GUESSES = 40
"""Below the fifty attempts an hour that an account accepts from unknown addresses."""


def timed(ask: Callable[[], httpx.Response], status: int) -> float:
    """Return the milliseconds until an answer with that status."""
    began = time.perf_counter()
    answer = ask()
    took = time.perf_counter() - began
    if answer.status_code != status:
        raise RuntimeError(f"{answer.status_code}: {answer.text}")
    return took * 1e3


def guess(running: Deployment, email: str) -> float:
    """Return how long a wrong password takes, from an address that nobody used."""
    person = Person(running, email, "not anybody's password")
    person.http.get("/healthz")
    return timed(person.log_in, httpx.codes.UNAUTHORIZED)


def main() -> None:
    """Measure and print."""
    telemetry.configure("error", json=False)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    took: dict[str, list[float]] = {}
    with (
        provider() as issuer,
        deployment(
            insecure_cookies=True, oidc_issuer=issuer.url, oidc_audience=AUDIENCE
        ) as running,
    ):
        issuer.keys = {"EC": new_key("EC", "EC")}
        ada = joined(running, "identity", "ada")
        callers = {
            "key": bearing(running.url, running.key("identity")),
            "session": ada.http,
            "token, ES256": bearing(
                running.url, issuer.token("EC", issuer.claims(tenant="identity"))
            ),
        }
        for _ in range(rounds):
            for name, client in callers.items():
                # The default binds this round's client; a type checker cannot type it in a lambda.
                once = timed(lambda client=client: client.get("/v1/me"), httpx.codes.OK)  # type: ignore[misc]
                took.setdefault(f"GET /v1/me by {name}", []).append(once)
        for client in callers.values():
            client.close()
        for number in range(GUESSES):
            emails = [ada.email, "nobody@example.com"]
            for email in emails if number % 2 else reversed(emails):
                name = f"login, {'wrong password' if email == ada.email else 'no account'}"
                took.setdefault(name, []).append(guess(running, email))
    table = Table("what", "median, ms", "p95, ms")
    found = {}
    for name, times in sorted(took.items()):
        median, p95 = statistics.median(times), statistics.quantiles(times, n=20)[-1]
        found[name] = {"median_ms": round(median, 2), "p95_ms": round(p95, 2)}
        table.add_row(name, *map(str, found[name].values()))
    pairs = zip(took["login, wrong password"], took["login, no account"], strict=True)
    slower = sum(known > unknown for known, unknown in pairs) / GUESSES
    table.caption = f"a wrong password took longer than no account in {slower:.0%} of the pairs"
    Console().print(table)
    print(json.dumps({"rounds": rounds, "guesses": GUESSES, "slower": slower, "found": found}))


if __name__ == "__main__":
    main()
