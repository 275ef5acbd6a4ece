"""Which names of files are refused, and that the others are what they were."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.store.objects import new_key, object_key
from runner.words.ids import new_id
from runner.words.paths import MAX_BYTES, MAX_PART_BYTES, MAX_PARTS, file_path, file_prefix
from tests.support.hostile_names import HOSTILE, PLAIN


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_name_that_anything_may_read_as_another_is_refused(name: str) -> None:
    """By the rule itself, and where keys are composed: no caller can forget it."""
    with pytest.raises(ValueError, match="must"):
        file_path(name)
    with pytest.raises(ValueError, match="must"):
        object_key(new_id(), name)


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_name_stays_as_it_is(name: str) -> None:
    """Whatever the language."""
    assert file_path(name) == name
    tenant = new_id()
    assert object_key(tenant, name) == f"tenants/{tenant}/{name}"


@given(st.text(max_size=40))
def test_what_is_accepted_leads_nowhere_else(text: str) -> None:
    """Any text: refused, or a downward path by every reading, also after normalisation."""
    try:
        name = file_path(text)
    except ValueError:
        return
    for reading in (name, unicodedata.normalize("NFKC", name), unicodedata.normalize("NFKD", name)):
        assert not reading.startswith("/")
        assert "\\" not in reading
        assert {"", ".", ".."}.isdisjoint(reading.split("/"))


def test_bounds_are_exact() -> None:
    """In parts and bytes, not characters."""
    file_path("/".join(["a"] * MAX_PARTS))
    file_path("a" * MAX_PART_BYTES)
    file_path("é" * (MAX_PART_BYTES // 2))
    whole = "/".join(["a" * 127] * 4)
    assert len(whole) == MAX_BYTES - 1
    file_path(whole)
    for beyond in (
        "/".join(["a"] * (MAX_PARTS + 1)),
        "é" * (MAX_PART_BYTES // 2 + 1),
        whole + "bb",
    ):
        with pytest.raises(ValueError, match=r"above|more than"):
            file_path(beyond)


def test_prefixes_may_end_in_a_slash() -> None:
    """Or be empty; otherwise the same rule holds."""
    for prefix in ("", "a", "a/", "a/b-"):
        assert file_prefix(prefix) == prefix
    for prefix in ("/", "../", "a//", "a/../"):
        with pytest.raises(ValueError, match="must"):
            file_prefix(prefix)


def test_keys_are_never_used_twice() -> None:
    """So that an overwrite is a new object."""
    tenant = new_id()
    keys = {new_key(tenant, "files") for _ in range(1000)}
    assert len(keys) == 1000
    assert all(key.startswith(f"tenants/{tenant}/files/") for key in keys)
