"""Tokens of sandboxes and what they sign, without services."""

import asyncio
import base64
import hashlib
from typing import cast
from uuid import UUID

import pytest

from runner.audit.events import Origin
from runner.auth import keys, sandbox_tokens
from runner.auth.keys import from_e2b_form, in_e2b_form
from runner.auth.sandbox_tokens import (
    MAX_PATH,
    MOST_WAITING,
    SandboxTokens,
    Searches,
    SignedAddress,
    Use,
    _said,
    _token,
)
from runner.secrets.keyring import Derivation
from runner.store.db import Database
from runner.words.errors import NotAuthenticated, Overloaded

SANDBOX = UUID("0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2")
KEY = bytes(32)


def test_a_key_and_its_form_for_e2b_are_one() -> None:
    """Each is made of the other, and their form is what their clients check."""
    token = keys.generate().token
    written = in_e2b_form(token)
    assert from_e2b_form(written) == token
    assert written.startswith("e2b_")
    assert set(written.removeprefix("e2b_")) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "text",
    ["", "e2b_", "e2b_00", "e2b_zz", "rk_abc", in_e2b_form("rk_short"), in_e2b_form("x" * 59),
     in_e2b_form(keys.generate().token).upper(), in_e2b_form(keys.generate().token) + "\n",
     in_e2b_form(keys.generate(keys.Holder.OPERATOR).token)],
)  # fmt: skip
def test_what_is_no_key_of_a_tenant_is_none(text: str) -> None:
    assert from_e2b_form(text) is None


def test_a_token_says_whom_it_is_for_and_is_always_the_same() -> None:
    """Another sandbox, prefix or signing key makes another token."""
    token = _token(Use.INSIDE, KEY, SANDBOX, "abcdefghijkl")
    assert token == _token(Use.INSIDE, KEY, SANDBOX, "abcdefghijkl")
    assert _said(Use.INSIDE, token) == (SANDBOX, "abcdefghijkl")
    others = {
        _token(Use.INSIDE, bytes([1]) * 32, SANDBOX, "abcdefghijkl"),
        _token(Use.INSIDE, KEY, UUID(int=1), "abcdefghijkl"),
        _token(Use.INSIDE, KEY, SANDBOX, "abcdefghijkm"),
    }
    assert len(others | {token}) == 4
    assert _said(Use.TRAFFIC, token) is None


@pytest.mark.parametrize("text", ["", "st_", "st_AAAA", "x" * 83, "st_é", "st_" + "A" * 79 + "="])
def test_what_is_no_token_says_nothing(text: str) -> None:
    assert _said(Use.INSIDE, text) is None


def signed(token: str, *parts: str) -> str:
    """Sign as E2B's clients do, by their documentation."""
    digest = hashlib.sha256(":".join([*parts[:3], token, *parts[3:]]).encode()).digest()
    return "v1_" + base64.b64encode(digest).decode().rstrip("=")


def test_an_address_is_signed_with_one_token_for_one_use() -> None:
    """Path, operation, user and time are all part of what was signed."""
    token = _token(Use.INSIDE, KEY, SANDBOX, "abcdefghijkl")
    for expires in (None, "1900000000"):
        rest = () if expires is None else (expires,)
        made = signed(token, "/a:b", "read", "", *rest)
        good = SignedAddress("/a:b", "read", "", expires, made)
        assert good.test()(token)
        assert not good.test()(_token(Use.INSIDE, KEY, UUID(int=1), "abcdefghijkl"))
        for other in (
            SignedAddress("/a", "read", "", expires, made),
            SignedAddress("/a:b", "write", "", expires, made),
            SignedAddress("/a:b", "read", "user", expires, made),
            SignedAddress("/a:b", "read", "", "1900000001", made),
            SignedAddress("/a:b", "read", "", expires, made + "="),
        ):
            assert not other.test()(token)


@pytest.mark.parametrize(
    ("expires", "over"),
    [(None, False), ("101", False), ("100", True), ("", True), ("-1", True), ("1e9", True),
     ("٣٤٥", True), ("9" * 13, True)],
)  # fmt: skip
def test_an_address_has_its_time(expires: str | None, over: bool) -> None:
    assert SignedAddress("/a", "read", "", expires, "v1_").is_over(100.0) is over


GOOD = signed(_token(Use.INSIDE, KEY, SANDBOX, "abcdefghijkl"), "/a", "read", "")


@pytest.mark.parametrize(
    "address",
    [SignedAddress("/a", "read", "", None, ""),
     SignedAddress("/a", "read", "", None, "v1_"),
     SignedAddress("/a", "read", "", None, GOOD[:-1]),
     SignedAddress("/a", "read", "", None, GOOD + "A"),
     SignedAddress("/a", "read", "", None, GOOD[:-1] + "B"),
     SignedAddress("/a", "read", "", None, GOOD[:-1] + "é"),
     SignedAddress("/a", "read", "root", None, GOOD),
     SignedAddress("/" + "a" * MAX_PATH, "read", "", None, GOOD)],
)  # fmt: skip
async def test_what_nobody_can_have_signed_is_not_looked_for(address: SignedAddress) -> None:
    """There is no database here: a right form gets as far as to it, and these do not."""
    tokens = SandboxTokens(cast(Database, None), cast(Derivation, None))
    with pytest.raises(NotAuthenticated):
        await tokens.find(address, None, Origin(None, None))
    with pytest.raises(AttributeError):
        await tokens.find(SignedAddress("/a", "read", "", None, GOOD), None, Origin(None, None))


async def test_few_wait_for_a_search_and_one_searches() -> None:
    """A caller beyond the limit is refused at once, and may try again later."""
    searches, inside, go_on = Searches(), 0, asyncio.Event()

    async def search() -> None:
        nonlocal inside
        async with searches.turn():
            inside += 1
            assert inside == 1
            await go_on.wait()
            inside -= 1

    waiting = [asyncio.create_task(search()) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await search()
    assert refused.value.retry_after_s == 1
    # One that goes away leaves its place to another.
    waiting.pop().cancel()
    await asyncio.sleep(0)
    waiting.append(asyncio.create_task(search()))
    go_on.set()
    await asyncio.gather(*waiting)
    await search()


async def test_nobody_waits_long_for_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_tokens, "SEARCH_S", 0.05)
    searches = Searches()
    for _ in range(2 * MOST_WAITING):
        with pytest.raises(Overloaded):
            async with searches.turn():
                await asyncio.Event().wait()


def test_what_was_found_is_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_tokens, "MOST_KNOWN", 2)
    searches = Searches()
    addresses = [SignedAddress("/a", "read", "", None, f"v1_{n}") for n in range(3)]
    for address in addresses:
        searches.found(address, SANDBOX)
    assert [searches.where(each) for each in addresses] == [None, SANDBOX, SANDBOX]
