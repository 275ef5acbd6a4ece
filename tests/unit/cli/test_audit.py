"""`runner audit verify FILE` trusts only given keys, and prints one line for any file."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from runner.audit.offline import MAX_SEQ
from runner.cli.app import app
from runner.cli.audit import print_audit
from tests.unit.audit.test_offline import TENANT, Made, made

__all__ = ["made"]


@pytest.fixture
def verify(made: Made, tmp_path: Path) -> Callable[..., Result]:
    """Return a function that writes lines to a file and verifies it as a user does."""
    key = tmp_path / "deployment.pub"
    key.write_text(made.signer.public_keys[0].pem)

    def verified(lines: list[str], *options: str, trusting: bool = True) -> Result:
        file = tmp_path / "export.ndjson"
        file.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
        given = ["--key", str(key)] if trusting else []
        return CliRunner().invoke(app, ["audit", "verify", str(file), *given, *options])

    return verified


def test_an_export_is_verified_by_the_key_that_is_given(
    made: Made, verify: Callable[..., Result]
) -> None:
    """It is whole. Without a key it is UNVERIFIED, which is a failure."""
    whole = verify(made.lines)
    assert (whole.exit_code, "whole" in whole.stdout) == (0, True), whole.output
    unverified = verify(made.lines, trusting=False)
    assert (unverified.exit_code, unverified.stdout) == (1, "")
    assert "UNVERIFIED" in unverified.stderr


ODD: dict[str, Callable[[list[str]], list[str]]] = {
    "empty": lambda _: [],
    "one word": lambda _: ["word"],
    "deep": lambda lines: [*lines[:1], "[" * 100_000],
    "deep record": lambda lines: [
        *lines[:1], f'{{"seq":1,"record":{"[" * 900 + "]" * 900},' + lines[1][1:]
    ],
    "no keys": lambda lines: [lines[0].replace('"keys"', '"kees"'), *lines[1:]],
    "a key that is a number": lambda lines: [
        lines[0].split('"keys"')[0] + '"keys": [{"pem": 7}]}', *lines[1:]
    ],
    "a signature by no text": lambda lines: [*lines[:-1], lines[-1].replace('"key":"', '"key":["')],
    "a key that is a list": lambda lines: [
        *lines[:-1], lines[-1].split('"key"')[0] + '"key":[],"signature":{},"type":'
        + lines[-1].split('"type":')[1]
    ],
    "seq true": lambda lines: [lines[0], lines[1].replace('"seq":1', '"seq":true'), *lines[2:]],
    "seq huge": lambda lines: [
        lines[0], lines[1].replace('"seq":1', f'"seq":{MAX_SEQ + 1}'), *lines[2:]
    ],
    "a blank in a hash": lambda lines: [
        lines[0], lines[1].replace('"hash":"', '"hash":" ', 1), *lines[2:]
    ],
    "markup": lambda lines: [lines[0].replace(str(TENANT), "[/bold]\\u001b[2J"), *lines[1:]],
    "a surrogate": lambda lines: [lines[0], lines[1].replace("key:a", "\\ud800"), *lines[2:]],
    "bytes": lambda lines: [*lines, "\ud800"],
    "nul": lambda lines: [*lines[:3], "\x00", *lines[3:]],
}  # fmt: skip


IGNORED = {"no keys", "a key that is a number"}
"""With a key of the reader's own, the keys in the file do not matter."""


@pytest.mark.parametrize(
    ("odd", "trusting"),
    [(odd, trusts) for odd in ODD for trusts in (True, False) if not (trusts and odd in IGNORED)],
)
def test_odd_input_is_an_error_and_no_traceback(
    odd: str, made: Made, verify: Callable[..., Result], *, trusting: bool
) -> None:
    """Each error is a text that cannot control a terminal."""
    result = verify(ODD[odd](made.lines), trusting=trusting)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1
    assert "does not hold" in result.stderr
    assert "\x1b[2J" not in result.output


def test_a_decision_about_a_host_is_listed_with_the_host(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = {
        "at": "2026-01-02T03:04:05Z", "actor": "system:worker", "outcome": "denied",
        "action": "egress:connect", "resource_type": "execution",
        "metadata": {"host": "a.example.com", "port": 443, "reason": "no_rule"},
    }  # fmt: skip
    print_audit([{"seq": 1, "record": record}])
    assert "a.example.com:443 no_rule" in capsys.readouterr().out
