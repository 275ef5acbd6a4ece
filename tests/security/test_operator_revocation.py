"""What an operator has opened ends within a second after their key or session.

Everything under `/operator/v1` goes through the same middleware, so two requests stand for all: a
long answer, and a body that comes slowly. In the control nothing ends, and both go on.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import httpx
import pytest
from pydantic import SecretStr

from runner.audit.events import Action, AuditEvent, Origin, Outcome, append_now
from runner.store.db import Database
from runner.words.ids import PLATFORM_TENANT
from tests.integration.api.test_operator import runner
from tests.security.test_revocation import Holder, Lives, Present, ended, slow_request
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment
from tests.support.people import OperatingPerson

RECORDS, RECORD_BYTES = 24, 2**20
"""So large an audit log is more than all buffers between the API and a client hold."""
_numbers = count(1)


@pytest.fixture(scope="module")
def operated(image: None) -> Iterator[Deployment]:
    """Return a deployment with sessions over plain HTTP, and a large audit log of its own."""
    with deployments.deployment(insecure_cookies=True, **NO_POOL) as made:
        made.portal.call(_fill_log, made)
        yield made


async def _fill_log(deployment: Deployment) -> None:
    event = AuditEvent(
        actor="operator:test",
        action=Action.LOGIN,
        outcome=Outcome.SUCCESS,
        resource_type="operator",
        origin=Origin(),
        metadata={"padding": "x" * RECORD_BYTES},
    )
    async with Database(SecretStr(deployment.stack.services.owner_url)) as owner:
        for _ in range(RECORDS):
            async with owner.tenant(PLATFORM_TENANT) as tx:
                await append_now(tx, PLATFORM_TENANT, event)


def audit_export(holder: Holder) -> Lives:
    """Begin to read the deployment's audit log slowly."""
    client = holder.another()
    answer = holder.stack.enter_context(client.stream("GET", "/operator/v1/audit/export"))
    assert answer.status_code == 200, answer.read()
    parts = answer.iter_raw()
    got = len(next(parts))

    def lives() -> bool:
        nonlocal got
        try:
            got += sum(map(len, parts))
        except (httpx.RemoteProtocolError, httpx.ReadError):
            assert got < RECORDS * RECORD_BYTES
            return False
        assert got > RECORDS * RECORD_BYTES
        return True

    return lives


def new_tenant(holder: Holder) -> Lives:
    """Begin to make a tenant."""
    body = b'{"name": "by-operator-%d"%s}' % (next(_numbers), b" " * 2000)
    return slow_request(holder, "POST", "/operator/v1/tenants", body, "application/json")


OPENED = (audit_export, new_tenant)
EVERYTHING = {each.__name__ for each in OPENED}
End = Callable[[Deployment, OperatingPerson], None]


def nothing(_: Deployment, __: OperatingPerson) -> None:
    """End nothing: the control."""


def revoke(deployment: Deployment, operator: OperatingPerson) -> None:
    assert runner(deployment, "operators", "revoke", operator.prefix).returncode == 0


def expire(deployment: Deployment, operator: OperatingPerson) -> None:
    deployment.sql(
        "UPDATE operators SET expires_at = now() WHERE prefix = %s",
        operator.prefix.removeprefix("ro_"),
    )


def log_out(_: Deployment, operator: OperatingPerson) -> None:
    assert operator.http.delete("/operator/v1/session").status_code == 204


def expire_session(deployment: Deployment, operator: OperatingPerson) -> None:
    deployment.sql(
        "UPDATE operator_sessions SET expires_at = now() WHERE hash = sha256(%s)",
        str(operator.http.cookies["runner_operator"]).encode(),
    )


@pytest.mark.parametrize(
    ("end", "over"),
    [
        (nothing, set()),
        (revoke, EVERYTHING),
        (expire, EVERYTHING),
        # The key stands, whichever of its sessions ends.
        (log_out, set()),
    ],
)
def test_what_an_operator_opened_by_key_ends_with_it(
    operated: Deployment, end: End, over: set[str]
) -> None:
    operator = OperatingPerson(operated)
    with ExitStack() as stack:
        http = httpx.Client(
            base_url=operated.url, headers={"Authorization": f"Bearer {operator.key}"}, timeout=30
        )
        holder = Holder(stack.enter_context(http), operated, Present())
        assert ended(holder, lambda: end(operated, operator), OPENED) == over


@pytest.mark.parametrize(
    ("end", "over"),
    [
        (nothing, set()),
        (revoke, EVERYTHING),
        (expire, EVERYTHING),
        (log_out, EVERYTHING),
        (expire_session, EVERYTHING),
    ],
)
def test_what_an_operator_opened_in_a_session_ends_with_it(
    operated: Deployment, end: End, over: set[str]
) -> None:
    operator = OperatingPerson(operated)
    holder = Holder(operator.http, operated, Present())
    assert ended(holder, lambda: end(operated, operator), OPENED) == over
