"""Logs are structured and hold no secrets."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from runner.base import telemetry
from runner.words.trace import TracePlace

CANARY = "canary-5f1c"


@pytest.fixture(autouse=True)
def _untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("field", sorted(telemetry.SECRET_KEYS))
def test_the_value_of_a_secret_field_is_never_written(
    field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry.configure("info", json=True)
    structlog.get_logger("test").info("call", **{field: CANARY, "deep": {field.upper(): [CANARY]}})
    written = capsys.readouterr().err
    assert CANARY not in written
    assert json.loads(written)[field] == telemetry.REDACTED


def test_a_secret_inside_a_list_is_never_written(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info", json=True)
    structlog.get_logger("test").info("call", requests=[{"token": CANARY}, ({"env": CANARY},)])
    assert CANARY not in capsys.readouterr().err


def test_redacting_leaves_the_callers_value_alone() -> None:
    given = {"headers": {"authorization": CANARY}}
    telemetry.redact(None, "info", {"event": "call", **given})
    assert given == {"headers": {"authorization": CANARY}}


def test_a_librarys_log_comes_out_as_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info", json=True)
    logging.getLogger("rq.worker").warning("no connection to %s", "redis")
    line = json.loads(capsys.readouterr().err)
    assert line["event"] == "no connection to redis"
    assert line["level"] == "warning"
    assert line["logger"] == "rq.worker"
    assert line["timestamp"].endswith("Z")


def test_lines_of_a_trace_have_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info", json=True)
    place = TracePlace.new(sampled=False)
    with telemetry.traced(place):
        structlog.get_logger("test").info("inside")
        logging.getLogger("rq.worker").warning("beside")
    with telemetry.traced(None):
        structlog.get_logger("test").info("outside")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line.get("trace_id") for line in lines] == [place.trace_id, place.trace_id, None]


def test_the_level_is_kept_and_libraries_are_quieter(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info", json=True)
    structlog.get_logger("test").debug("ours")
    logging.getLogger("uvicorn").info("theirs")
    assert capsys.readouterr().err == ""


def test_a_traceback_is_part_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("error", json=True)
    try:
        raise ValueError("why")  # noqa: TRY301 - the log of a caught exception is what is tested
    except ValueError:
        structlog.get_logger("test").exception("failed")
    line = json.loads(capsys.readouterr().err)
    assert "ValueError: why" in line["exception"]


def test_a_terminal_gets_text(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info", json=False)
    structlog.get_logger("test").info("started", port=8080, token=CANARY)
    written = capsys.readouterr().err
    assert "started" in written
    assert "8080" in written
    assert CANARY not in written


WIDE = {
    "text": "x" * 10**7,
    "bytes": b"x" * 10**7,
    "number": 10**5000,
    "list": ["x" * 10**5] * 10**3,
    "mapping": {f"{n}" * 1000: ["x" * 10**5] * 100 for n in range(1000)},
    "nested": [[[[[["x" * 10**4] * 9] * 9] * 9] * 9] * 9],
    "x" * 10**6: 1,
    **{f"field {n}": n for n in range(1000)},
}
BOUND = 2**22
"""Length of one line, whatever it consists of: every level has a bound of its own."""


@pytest.mark.parametrize("name", [name for name in WIDE if not name.startswith("field")])
@pytest.mark.parametrize("json_", [True, False])
def test_a_line_is_cut_at_a_bound(
    name: str, json_: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry.configure("info", json=json_)
    structlog.get_logger("test").info("call", **{name: WIDE[name]})
    assert len(capsys.readouterr().err) < BOUND


@pytest.mark.parametrize("json_", [True, False])
def test_a_librarys_text_and_a_traceback_are_cut_and_keep_their_end(
    json_: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry.configure("info", json=json_)
    logging.getLogger("rq").warning("%s", "x" * 10**6)
    try:
        raise ValueError("x" * 10**6 + "the end")  # noqa: TRY301 - logged below
    except ValueError:
        structlog.get_logger("test").exception("failed")
    written = capsys.readouterr().err
    assert len(written) < 2 * telemetry.MAX_TRACEBACK
    assert "the end" in written


def test_what_is_short_is_written_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info", json=True)
    fields = {"text": "x" * telemetry.MAX_TEXT, "flag": True, "number": -1.5, "none": None}
    structlog.get_logger("test").info("call", **fields, deep={"a": [1, {"b": "c"}]})
    line = json.loads(capsys.readouterr().err)
    assert {**line, **fields, "deep": {"a": [1, {"b": "c"}]}} == line
