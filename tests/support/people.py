"""People for tests: members, invited with the operators' command, and operators, by their keys.

Each logs in from another address.
"""

import subprocess
import sys
from collections.abc import Iterator
from itertools import count

import httpx

from runner.words.principal import Role
from tests.support.deployment import Deployment

PASSWORD = "umbrella granite walrus tempo"  # noqa: S105 - of people who are not

_addresses: Iterator[int] = count(2)


class Person:
    """A browser: it keeps cookies, says where its pages come from, and has its own address."""

    def __init__(self, deployment: Deployment, email: str, password: str = PASSWORD) -> None:
        self.email = email
        self.password = password
        self.http = _from_elsewhere(deployment)

    def accept(self, token: str) -> httpx.Response:
        """Accept an invitation."""
        body = {"token": token, "password": self.password}
        return self.http.post("/v1/login/accept", json=body)

    def log_in(self, tenant: str | None = None, password: str | None = None) -> httpx.Response:
        """Log in; later requests of `http` then carry what one of our pages would send."""
        body = {"email": self.email, "password": password or self.password}
        if tenant is not None:
            body["tenant"] = tenant
        answer = self.http.post("/v1/login", json=body)
        if answer.is_success:
            self.http.headers["X-CSRF-Token"] = answer.json()["csrf_token"]
        return answer


class OperatingPerson:
    """An operator's browser, which has exchanged a key for a session."""

    def __init__(self, deployment: Deployment) -> None:
        by_key = deployment.operator()
        self.key = by_key.headers["authorization"].removeprefix("Bearer ")
        self.http = _from_elsewhere(deployment)
        answer = self.log_in()
        assert answer.status_code == 201, answer.text

    @property
    def prefix(self) -> str:
        """The beginning of the key, by which the commands know it."""
        return self.key[:15]

    def log_in(self) -> httpx.Response:
        """Begin a session; later requests of `http` then carry what our page would send."""
        proof = {"Authorization": f"Bearer {self.key}"}
        answer = self.http.post("/operator/v1/session", headers=proof)
        if answer.is_success:
            self.http.headers["X-CSRF-Token"] = answer.json()["csrf_token"]
        return answer


def _from_elsewhere(deployment: Deployment) -> httpx.Client:
    """Return a client with an address of its own, closed with the deployment."""
    number = next(_addresses)
    # All of 127.0.0.0/8 is this host (RFC 1122 3.2.1.3), so each person gets another address.
    transport = httpx.HTTPTransport(local_address=f"127.1.{number >> 8}.{number & 255}")
    made = httpx.Client(base_url=deployment.url, transport=transport, timeout=30)
    deployment.clients.callback(made.close)
    return made


def operate(deployment: Deployment, *arguments: str) -> str:
    """Run `runner members` as an operator does; return what it prints."""
    ran = subprocess.run(
        [sys.executable, "-m", "runner", "members", *arguments],
        env={
            **deployment.stack.settings.as_environment(),
            "RUNNER_DATABASE_OWNER_URL": deployment.stack.services.owner_url,
            "PATH": "/usr/bin:/bin",
            "COLUMNS": "200",
        },
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.strip()


def joined(deployment: Deployment, tenant: str, name: str, role: Role = Role.OWNER) -> Person:
    """Return a member who has logged in to a tenant, which is made if it does not exist."""
    deployment.key(tenant)
    person = Person(deployment, f"{name}@example.com")
    token = operate(
        deployment, "add", "--tenant", tenant, "--email", person.email, "--role", role.value
    )
    answer = person.accept(token)
    assert answer.status_code == 204, answer.text
    answer = person.log_in(tenant)
    assert answer.status_code == 200, answer.text
    return person


def id_of(owner: Person, email: str) -> str:
    """Return the id by which a tenant knows a member."""
    listed = owner.http.get("/v1/members").json()["items"]
    return next(str(each["id"]) for each in listed if each["email"] == email)
