"""Grants: what opens the node's door, and what does not."""

import base64
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runner.door.grants import GOOD_FOR_S, MOST_S, GrantKey, Knock, make_key, read_key
from runner.words.errors import NodeAway, NotPermitted, SetupError
from runner.words.ids import new_id

KEY = GrantKey(b"k" * 32)
KNOCK = Knock(new_id(), new_id(), "key:agent", ip="192.0.2.7", request_id="r")
NOW = 1_800_000_000.0


def test_a_grant_says_whose_sandbox_and_who_calls() -> None:
    grant = KEY.check(KEY.sign(KNOCK, "start", now=NOW), "start", now=NOW)
    assert (grant.tenant, grant.sandbox) == (KNOCK.tenant_id, KNOCK.sandbox_id)
    assert (grant.actor, grant.ip, grant.user_agent) == ("key:agent", "192.0.2.7", None)


def test_a_grant_is_for_one_call() -> None:
    with pytest.raises(NotPermitted, match="another call"):
        KEY.check(KEY.sign(KNOCK, "stat", now=NOW), "remove", now=NOW)


def test_a_grant_ends_in_seconds() -> None:
    text = KEY.sign(KNOCK, "start", now=NOW)
    KEY.check(text, "start", now=NOW + GOOD_FOR_S - 0.1)
    with pytest.raises(NotPermitted, match="expired"):
        KEY.check(text, "start", now=NOW + GOOD_FOR_S)


def test_no_grant_is_good_for_long_whoever_signed_it() -> None:
    text = KEY.sign(KNOCK, "start", now=NOW + MOST_S)
    with pytest.raises(NotPermitted, match="expired"):
        KEY.check(text, "start", now=NOW)


def test_another_hosts_grant_is_refused() -> None:
    text = GrantKey(b"x" * 32).sign(KNOCK, "start", now=NOW)
    with pytest.raises(NotPermitted, match="not signed"):
        KEY.check(text, "start", now=NOW)


@pytest.mark.parametrize("field", ["tenant", "sandbox", "call", "until", "actor"])
def test_what_a_grant_says_cannot_be_changed(field: str) -> None:
    """The control: signed as it stands, the same text is taken."""
    body, mac = KEY.sign(KNOCK, "start", now=NOW).split(".")
    said = json.loads(base64.urlsafe_b64decode(body))
    changed = {
        "tenant": str(new_id()),
        "sandbox": str(new_id()),
        "call": "remove",
        "until": NOW + 20,
        "actor": "key:other",
    }
    forged = json.dumps({**said, field: changed[field]}, sort_keys=True).encode()
    with pytest.raises(NotPermitted, match="not signed"):
        KEY.check(f"{base64.urlsafe_b64encode(forged).decode()}.{mac}", "start", now=NOW)
    own = base64.urlsafe_b64encode(KEY._mac(forged)).decode()
    call = "remove" if field == "call" else "start"
    KEY.check(f"{base64.urlsafe_b64encode(forged).decode()}.{own}", call, now=NOW)


@pytest.mark.parametrize("text", ["", ".", "a.b", "é.é", "AAAA", "." * 5000, "A" * 5000 + ".A"])
def test_what_is_no_grant_is_refused(text: str) -> None:
    with pytest.raises(NotPermitted):
        KEY.check(text, "start", now=NOW)


@pytest.mark.parametrize(
    "body", [b"null", b"{}", b"[" * 3000, b'{"tenant":"x"}', b"\xff", b'{"until":NaN}']
)
def test_signed_nonsense_is_refused(body: bytes) -> None:
    text = base64.urlsafe_b64encode(body).decode()
    mac = base64.urlsafe_b64encode(KEY._mac(body)).decode()
    with pytest.raises(NotPermitted, match="not one of ours"):
        KEY.check(f"{text}.{mac}", "start", now=NOW)


def test_long_names_are_cut() -> None:
    knock = replace(KNOCK, actor="a" * 9000, user_agent="u" * 9000)
    grant = KEY.check(KEY.sign(knock, "start", now=NOW), "start", now=NOW)
    assert len(grant.actor) == 256
    assert grant.user_agent == "u" * 256


def test_the_key_stays_the_same_and_is_the_owners_alone(tmp_path: Path) -> None:
    made = make_key(tmp_path)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    text = made.sign(KNOCK, "start")
    make_key(tmp_path).check(text, "start")
    read_key(tmp_path).check(text, "start")
    assert "k" not in repr(made).removeprefix("GrantKey")


def test_a_host_whose_node_never_ran_has_no_key(tmp_path: Path) -> None:
    with pytest.raises(NodeAway):
        read_key(tmp_path)


def test_a_key_of_another_length_is_none(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(SetupError, match="32 bytes"):
        make_key(tmp_path)


def test_a_grant_is_made_and_checked_in_less_than_a_millisecond() -> None:
    began = time.process_time()
    for _ in range(200):
        KEY.check(KEY.sign(KNOCK, "start"), "start")
    assert (time.process_time() - began) / 200 < 0.001
