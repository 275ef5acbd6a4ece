"""The event stream when the API goes away, and when output is cut in odd places."""

import signal
import socket
from threading import Thread

from agent_runner import Client, Event
from tests.support import deployment as deployments
from tests.support.deployment import eventually

COUNTS = """
import time
for number in range(40):
    print(number, flush=True)
    time.sleep(0.1)
"""
SPLIT = """
import sys, time
for part in (b"\\xe2\\x82", b"\\xac\\n"):
    sys.stdout.buffer.write(part)
    sys.stdout.flush()
    time.sleep(1.5)
"""


def test_a_reader_misses_and_repeats_nothing_when_the_api_is_restarted(image: None) -> None:
    """The API is killed in the middle of a stream and restarted; the client continues."""
    with deployments.deployment(port=free_port()) as own:
        events: list[Event] = []
        broke: list[Exception] = []

        def follow(client: Client, id_: str) -> None:
            try:
                events.extend(client.events(id_))
            except Exception as error:  # noqa: BLE001 - told to the test, which fails by it
                broke.append(error)

        id_ = own.client("reader").submit(code=COUNTS, language="python").id
        with Client(own.url, own.key("reader")) as client:
            reader = Thread(target=follow, args=(client, id_))
            reader.start()
            with Client(own.url, own.key("reader")) as other:
                stream = other.events(id_)
                while b"5\n" not in next(stream).raw:
                    pass
                own.portal.call(own.stack.api.stop, signal.SIGKILL)
                own.stack.api.start()
                eventually(lambda: not reader.is_alive())
        assert broke == []
        assert [each.id for each in events] == list(range(1, len(events) + 1))
        output = b"".join(each.raw for each in events if each.kind == "stdout")
        assert output == b"".join(b"%d\n" % number for number in range(40))
        assert events[-1].data["state"] == "succeeded"


def test_a_character_cut_in_two_arrives_whole(shared: deployments.Deployment) -> None:
    """The bytes of a character that came in two pieces are sent together, as text."""
    client = shared.client("cut")
    submitted = client.submit(code=SPLIT, language="python")
    sent = [each for each in client.events(submitted.id) if each.kind == "stdout"]
    assert b"".join(each.raw for each in sent) == "€\n".encode()
    assert {each.data["encoding"] for each in sent} == {"utf-8"}
    ended = client.get(submitted.id)
    assert ended.stdout is not None and ended.stdout.text == "€\n"


def free_port() -> int:
    """Return a port nobody listens on: the API must come back on the one it had."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
