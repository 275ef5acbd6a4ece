"""A build does some work for each step, and knows a step again by its hash."""

import itertools

import pytest

from runner.templates.steps import (
    MOST_ENV,
    hashes,
    kept_env,
    kept_user,
    kept_workdir,
    last_user,
    works,
)
from runner.words.errors import Invalid
from runner.words.templates import CopyStep, EnvStep, RunStep, Step, UserStep, WorkdirStep

STEPS: tuple[Step, ...] = (
    EnvStep({"A": "1"}),
    EnvStep({"B": "2"}, kept=False),
    WorkdirStep("/srv"),
    UserStep("agent"),
    WorkdirStep("app"),
    CopyStep("main.py", b"print()", 0o755),
    RunStep("make"),
)


def test_a_command_has_what_the_steps_before_it_have_set() -> None:
    *_, run = works(STEPS, {"BASE": "0"})
    assert run.command == {
        "do": "run",
        "command": ["/bin/sh", "-ec", "make"],
        "user": "agent",
        "cwd": "/srv/app",
        "env": {"BASE": "0", "A": "1", "B": "2"},
    }
    assert run.title == "[7/7] RUN make"


def test_steps_that_only_set_something_do_nothing() -> None:
    assert [each.command["do"] for each in works(STEPS, {})] == [
        "workdir", "workdir", "copy", "run"
    ]  # fmt: skip


def test_steps_that_are_done_already_still_hold() -> None:
    (run,) = works(STEPS, {}, skip=6)
    assert (run.command["cwd"], run.command["user"]) == ("/srv/app", "agent")


def test_steps_begin_in_the_working_directory_of_the_base() -> None:
    (run,) = works((RunStep("make"),), {}, "/opt/base")
    assert run.command["cwd"] == "/opt/base"
    *_, run = works((WorkdirStep("app"), RunStep("make")), {}, "/opt/base")
    assert run.command["cwd"] == "/opt/base/app"


@pytest.mark.parametrize(
    ("steps", "base", "kept"),
    [
        ((), None, None),
        ((), "/opt", "/opt"),
        ((RunStep("cd /srv"),), None, None),
        ((WorkdirStep("/srv"), WorkdirStep("app")), None, "/srv/app"),
        ((WorkdirStep("app"),), "/opt", "/opt/app"),
        ((WorkdirStep("app"),), None, "/app"),
        ((WorkdirStep("/"),), "/opt", "/"),
    ],
)
def test_a_template_keeps_its_last_working_directory(
    steps: tuple[Step, ...], base: str | None, kept: str | None
) -> None:
    assert kept_workdir(steps, base) == kept


def test_the_last_user_is_known() -> None:
    assert last_user(STEPS) == "agent"
    assert last_user(STEPS[:3]) is None
    assert last_user((*STEPS, UserStep("root:root"))) == "root"


@pytest.mark.parametrize(
    ("name", "base", "user"),
    [
        ("app", None, "app"),
        ("app:staff", "other", "app"),
        ("root", None, None),
        ("root", "other", "other"),
        ("my_app-1", None, "my_app-1"),
    ],
)
def test_the_last_user_is_that_of_sandboxes_unless_it_is_root(
    name: str, base: str | None, user: str | None
) -> None:
    assert kept_user((UserStep("first"), UserStep(name)), base) == user
    assert kept_user((), base) == base


@pytest.mark.parametrize("name", ["nobody", "tty", "1000", "1000:1000", "A", "a" * 32, "", "../x"])
def test_a_user_whom_no_sandbox_can_have_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="no sandbox can have"):
        kept_user((UserStep(name),), None)
    assert kept_user((UserStep(name), UserStep("app")), None) == "app"


def test_a_working_directory_may_be_that_of_steps_alone() -> None:
    steps = (WorkdirStep("/home/user", kept=False), RunStep("make"))
    assert kept_workdir(steps, None) is None
    assert kept_workdir((*steps, WorkdirStep("app")), None) == "/home/user/app"
    assert kept_workdir((*steps, WorkdirStep("/srv")), "/base") == "/srv"


def test_variables_of_the_build_alone_are_not_kept() -> None:
    assert kept_env(STEPS, {"A": "0", "BASE": "0"}) == {"A": "1", "BASE": "0"}


@pytest.mark.parametrize("kept", [True, False])
def test_variables_have_a_bound_that_counts_the_base_and_every_step(*, kept: bool) -> None:
    def step(size: int) -> EnvStep:
        return EnvStep({"A": "x" * (size - 1)}, kept)

    base = {"B": "x" * 999}
    kept_env((step(1000), step(MOST_ENV - 2000)), base)
    with pytest.raises(Invalid, match=f"{MOST_ENV} are allowed"):
        kept_env((step(1000), step(MOST_ENV - 1999)), base)


def test_a_working_directory_has_a_bound_however_many_steps_add_to_it() -> None:
    """Each step holds its path, so 200 long ones would hold more than a GB."""
    deep = WorkdirStep("x" * 999)
    *_, last = works([deep] * 4, {})
    assert len(str(last.command["cwd"])) == 4000
    with pytest.raises(Invalid, match=r"\[5/200\] WORKDIR: its path has more than 4096 bytes"):
        tuple(works([deep] * 200, {}))


def test_a_hash_covers_a_step_and_all_before_it() -> None:
    assert len(set(hashes("python", STEPS))) == len(STEPS)
    assert hashes("python", STEPS[:3]) == hashes("python", STEPS)[:3]
    assert hashes("data", STEPS)[0] != hashes("python", STEPS)[0]
    differing: tuple[Step, ...] = (
        CopyStep("a", b"1"),
        CopyStep("a", b"2"),
        CopyStep("b", b"2"),
        CopyStep("b", b"2", 0o755),
        RunStep("a"),
        WorkdirStep("a"),
        UserStep("a"),
        EnvStep({"a": "b"}),
        EnvStep({"a": "b"}, kept=False),
    )
    for one, other in itertools.pairwise(differing):
        assert hashes("", (one,)) != hashes("", (other,))


def test_what_steps_have_set_ends_with_their_template() -> None:
    """The same step is another one there: it runs in another folder, by another user."""
    first = hashes("python", STEPS[:4])
    assert hashes(first[-1], STEPS[4:]) != hashes("python", STEPS)[4:]
