"""A viewer who resets event streams at random moments disturbs nobody else."""

import random
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx

from runner.words.principal import Role
from tests.support.deployment import Deployment

RESETS = 1500
AT_ONCE = 8
CHATTY = """
import time
while True:
    print(time.time(), flush=True)
    time.sleep(0.02)
"""
LATEST_S = 0.3
"""The stream has news every 20 ms, so that resets hit any of its round trips."""
HANG_UP = struct.pack("ii", 1, 0)
"""SO_LINGER for nought seconds: close() sends a reset instead of an end (socket(7))."""


def test_1500_streams_reset_at_random_moments_cost_no_other_tenant_an_answer(
    shared: Deployment,
) -> None:
    """No answer fails during the resets or afterwards, and each submission runs once.

    Nor do tracebacks appear in the operator's log.
    """
    log = shared.stack.settings.state_dir / "log" / "api.log"
    logged = log.stat().st_size
    watching = shared.client("reset-viewer")
    watched = watching.submit(
        code=CHATTY, language="python", size="small", limits={"timeout_s": 300}
    )
    viewer = shared.key("reset-viewer", Role.VIEWER)
    other = shared.http("reset-other")
    where = urlsplit(shared.url)
    request = (
        f"GET /v1/executions/{watched.id}/events HTTP/1.1\r\nHost: {where.netloc}\r\n"
        f"Authorization: Bearer {viewer}\r\n\r\n"
    ).encode()

    def reset(number: int) -> None:
        moment = random.Random(number).random() * LATEST_S  # noqa: S311 - not for security
        with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, HANG_UP)
            connection.sendall(request)
            time.sleep(moment)

    answers: list[httpx.Response] = []
    with ThreadPoolExecutor(AT_ONCE) as attackers:
        attack = [attackers.submit(reset, number) for number in range(RESETS)]
        while not all(each.done() for each in attack):
            answers.append(other.get("/v1/executions"))
            answers.append(
                other.post(
                    "/v1/executions",
                    json={"code": "print(2)", "language": "python", "wait_s": 20},
                )
            )
        for each in attack:
            each.result()
    # Had it ended, later resets would have hit a stream that sends nothing more.
    assert watching.get(watched.id).state == "running"
    watching.cancel(watched.id)
    answers += [other.get(path) for path in ("/v1/executions", "/readyz") for _ in range(40)]

    assert [answer.text for answer in answers if answer.is_server_error] == []
    assert "Traceback" not in log.read_bytes()[logged:].decode()
    submitted = [answer.json() for answer in answers if answer.request.method == "POST"]
    assert {each["state"] for each in submitted} == {"succeeded"}
