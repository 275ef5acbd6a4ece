"""A proposal keeps the calls that were made, drops the others, and names the refused ones."""

import json
from typing import Any

import pytest

from runner.base.seccomp import Document, load_profile, read_profile
from runner.base.settings import Settings
from runner.profiles.dangerous import DANGEROUS
from runner.profiles.propose import SANDBOX, Call, Proposal, conditional_arguments, propose
from tests.unit.test_seccomp import DANGEROUS as KNOWN_DANGERS


@pytest.fixture(scope="module")
def raw() -> Any:
    """Return the shipped profile as it is written."""
    return read_profile(Settings().profiles_path / "seccomp" / "default.json")[0]


def proposed(raw: Any, *calls: Call) -> Proposal:
    """Return the proposal for these calls."""
    return propose(raw, Document.model_validate(raw), calls, "Needed by: a test")


def entries(proposal: Proposal, name: str) -> list[dict[str, Any]]:
    """Return the entries that name this call."""
    return [e for e in json.loads(proposal.after)["syscalls"] if name in e["names"]]


def test_what_was_not_called_is_dropped_and_what_was_stays(raw: Any) -> None:
    proposal = proposed(raw, Call("inotify_init1"), Call("sendfile"))
    assert "inotify_rm_watch" in proposal.unused
    assert "sendfile" not in proposal.unused
    assert entries(proposal, "inotify_add_watch") == []
    assert len(entries(proposal, "inotify_init1")) == 1


def test_groups_keep_their_order_and_their_reasons(raw: Any) -> None:
    before = [entry["comment"] for entry in raw["syscalls"]]
    after = [e["comment"] for e in json.loads(proposed(raw, Call("mremap")).after)["syscalls"]]
    assert after == [comment for comment in before if comment in after]


def test_what_a_sandbox_needs_is_never_dropped(raw: Any) -> None:
    kept = {n for e in json.loads(proposed(raw).after)["syscalls"] for n in e["names"]}
    allowed = Document.model_validate(raw).allowed
    assert {call.name for call in SANDBOX} & allowed <= kept


def test_chosen_answers_stay(raw: Any) -> None:
    """A program that got ENOSYS continued without the call; with EPERM it might not."""
    (entry,) = entries(proposed(raw, Call("clone3")), "clone3")
    assert (entry["action"], entry["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)


def test_an_allowed_form_of_a_call_keeps_its_entry_alone(raw: Any) -> None:
    call = Call("socket", ((0, 10), (1, 0x80001), (2, 6)))
    tests = [
        [(a["index"], a["valueTwo"]) for a in e["args"]]
        for e in entries(proposed(raw, call), "socket")
    ]
    assert [(0, 10), (1, 1), (2, 6)] in tests
    assert [(0, 10), (1, 2), (2, 0)] not in tests


def test_a_refused_call_is_added_with_its_reason_and_a_warning(raw: Any) -> None:
    proposal = proposed(raw, Call("unshare"), Call("sync"))
    assert proposal.added == (Call("sync"), Call("unshare"))
    (entry,) = entries(proposal, "unshare")
    assert entry == {
        "comment": "Needed by: a test",
        "names": ["sync", "unshare"],
        "action": "SCMP_ACT_ALLOW",
    }
    assert len(proposal.warnings) == 1
    assert "namespaces" in proposal.warnings[0]


def test_a_refused_form_of_a_call_is_added_with_its_arguments(raw: Any) -> None:
    netlink = Call("socket", ((0, 16), (1, 0x80003), (2, 0)))
    proposal = proposed(raw, netlink)
    assert proposal.added == (Call("socket", ((0, 16), (1, 3), (2, 0))),)
    assert [a["valueTwo"] for a in entries(proposal, "socket")[-1]["args"]] == [16, 3, 0]
    assert "refused" in proposal.warnings[0]


def test_a_namespace_flag_is_a_refused_form_of_clone(raw: Any) -> None:
    proposal = proposed(raw, Call("clone", ((0, 0x10000000 | 0x11),)))
    assert proposal.added == (Call("clone", ((0, 0x10000000),)),)


def test_the_diff_is_one_that_can_be_read_and_applied(raw: Any) -> None:
    diff = proposed(raw, Call("sync")).diff("seccomp/default.json")
    assert diff.startswith("--- a/seccomp/default.json\n+++ b/seccomp/default.json\n")
    assert '-        "inotify_init1",\n' in diff
    assert '+        "sync"\n' in diff


def test_a_proposal_is_a_profile_again(raw: Any) -> None:
    after = json.loads(proposed(raw, Call("sync"), Call("unshare")).after)
    assert "sync" in Document.model_validate(after).allowed


def test_only_conditional_calls_have_their_arguments_looked_at(raw: Any) -> None:
    tested = conditional_arguments(Document.model_validate(raw))
    assert tested["socket"] == (0, 1, 2)
    assert tested["ioctl"] == (1,)
    assert "read" not in tested


def test_every_known_danger_has_its_reason() -> None:
    """The shipped profile permits none of them."""
    without_reason = set(KNOWN_DANGERS) - DANGEROUS.keys()
    assert without_reason <= {"_sysctl", "afs_syscall", "get_kernel_syms", "lsm_set_self_attr"}
    assert load_profile(Settings().profiles_path).allowed & DANGEROUS.keys() == set()
