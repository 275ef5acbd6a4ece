"""E2B's interface without their SDK: a client of the control plane, and one inside a sandbox."""

from http import HTTPStatus
from typing import Any

import httpx

from runner.api.e2b.paths import DAEMON_PORT
from runner.auth.keys import in_e2b_form
from runner.words.principal import Role
from tests.support.deployment import Deployment


def control(made: Deployment, tenant: str, role: Role = Role.OWNER, **options: Any) -> httpx.Client:
    """Return a client with a new key in E2B's form, closed with the deployment."""
    return made.clients.enter_context(knowing(made, made.key(tenant, role, **options)))


class Repeating(httpx.HTTPTransport):
    """Sends again what was answered 503, as E2B's clients do: Docker may be slow on a busy host."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, up to four times."""
        request.read()
        for _ in range(3):
            answer = super().handle_request(request)
            if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                return answer
            answer.close()
        return super().handle_request(request)


def knowing(made: Deployment, token: str) -> httpx.Client:
    """Return a client of the control plane with this key."""
    headers = {"X-API-KEY": in_e2b_form(token)}
    return httpx.Client(base_url=made.url, headers=headers, timeout=120, transport=Repeating())


def within(made: Deployment, sandbox: dict[str, Any], **headers: str) -> httpx.Client:
    """Return a client inside a sandbox, as creating it or connecting to it was answered."""
    given = {
        "E2b-Sandbox-Id": sandbox["sandboxID"],
        "E2b-Sandbox-Port": str(DAEMON_PORT),
        "X-Access-Token": sandbox["envdAccessToken"],
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    client = httpx.Client(base_url=made.url, headers=given, timeout=120)
    return made.clients.enter_context(client)


def create(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    """Make a sandbox, and return the answer."""
    made = client.post("/v2/sandboxes", json={"templateID": "base", **fields})
    assert made.status_code == 201, made.text
    answer: dict[str, Any] = made.json()
    return answer
