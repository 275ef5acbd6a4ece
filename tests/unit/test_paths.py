"""Some names of files are refused; all others stay unchanged."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.store.objects import new_key
from runner.words.ids import new_id
from runner.words.paths import MAX_BYTES, MAX_PART_BYTES, MAX_PARTS, file_path, file_prefix
from tests.support.hostile_names import HOSTILE, ODD, PLAIN


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    """A name with control characters, or one that is longer than Linux allows, is refused, too."""
    with pytest.raises(ValueError, match="must"):
        file_path(name)


@pytest.mark.parametrize("name", [*ODD.values(), *PLAIN])
def test_any_other_name_stays_as_it_is(name: str) -> None:
    """This holds for any language and any look."""
    assert file_path(name) == name


def test_names_that_look_alike_are_different_names() -> None:
    """Nothing is normalised: names stay as on the system that made them."""
    names = ("caf\u00e9", "cafe\u0301", "ﬁle", "file", "a\u00a0b", "a b")
    assert [file_path(name) for name in names] == list(names)


@given(st.text(max_size=40))
def test_what_is_accepted_leads_nowhere_else(text: str) -> None:
    """Any text is refused, or is a downward path that prints on one line."""
    try:
        name = file_path(text)
    except ValueError:
        return
    assert {"", ".", ".."}.isdisjoint(name.split("/"))
    assert "Cc" not in map(unicodedata.category, name)


def test_bounds_are_exact() -> None:
    """They count parts and bytes, not characters."""
    file_path("/".join(["a"] * MAX_PARTS))
    file_path("a" * MAX_PART_BYTES)
    file_path("é" * (MAX_PART_BYTES // 2))
    whole = "/".join(["a" * 203] * 5 + ["bbb"])
    assert len(whole) == MAX_BYTES - 1
    file_path(whole)
    for beyond in (
        "/".join(["a"] * (MAX_PARTS + 1)),
        "é" * (MAX_PART_BYTES // 2 + 1),
        whole + "bb",
    ):
        with pytest.raises(ValueError, match=r"above|exceed|more than"):
            file_path(beyond)


def test_prefixes_may_end_in_a_slash() -> None:
    """They may be empty, too; otherwise, the same rule holds."""
    for prefix in ("", "a", "a/", "a/b-"):
        assert file_prefix(prefix) == prefix
    for prefix in ("/", "../", "a//", "a/../"):
        with pytest.raises(ValueError, match="must"):
            file_prefix(prefix)


def test_keys_are_never_used_twice() -> None:
    """So every overwrite makes a new object."""
    tenant = new_id()
    keys = {new_key(tenant, "files") for _ in range(1000)}
    assert len(keys) == 1000
    assert all(key.startswith(f"tenants/{tenant}/files/") for key in keys)
