"""The part of an audit record that becomes an event may be read by every role."""

import json
from typing import Any

from runner.sandboxes.events import EventPlace, SandboxEvent, of_record

AT = "2026-03-01T12:00:00.000000Z"


def told(action: str, outcome: str = "success", /, **facts: Any) -> list[SandboxEvent]:
    """Return the events of a record with the number 7."""
    record = {
        "at": AT, "action": action, "outcome": outcome, "metadata": facts, "actor": "key:who",
        "ip": "203.0.113.7",
    }  # fmt: skip
    return list(of_record(7, json.dumps(record)))


def test_each_process_of_a_record_is_an_event_of_its_own() -> None:
    started = [{"number": 3, "program": "a", "arguments": 1}, {"number": 4, "program": "b"}]
    events = told("sandbox:processes", started=started)
    assert [str(each.place) for each in events] == ["7-0", "7-1"]
    assert events[1].facts == {"process": 4, "program": "b"}
    assert EventPlace.read("7-1") == events[1].place > events[0].place


def test_who_did_it_and_facts_that_are_not_chosen_are_not_told() -> None:
    (life,) = told("sandbox:start", node="n", image_digest="sha256:1")
    assert life.facts == {"state": "running"}
    (context,) = told("sandbox:contexts", ran=[{"context": 1, "code_sha256": "ab"}])
    assert context.facts == {"context": 1, "did": "ran"}
    (egress,) = told("egress:connect", host="a.test", session="s", decided_at=AT)
    assert egress.facts == {"host": "a.test"}


def test_refusals_and_records_of_other_kinds_are_no_events() -> None:
    assert told("sandbox:resume", "denied", quota="cpu_s_per_day") == []
    assert told("secret:use", purpose="environment") == []
    assert told("sandbox:end", reason="killed")[0].is_end
