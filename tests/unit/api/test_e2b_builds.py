"""Requests of E2B's clients for a template become our steps."""

import tracemalloc
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from runner.api.e2b.build_requests import E2bBuild, E2bStep, E2bTemplate, steps_of
from runner.store.files import StoredFile
from runner.words.errors import Invalid
from runner.words.sandbox import UnixAccount
from runner.words.templates import (
    BASH,
    EnvStep,
    RunStep,
    Startup,
    Step,
    UnpackStep,
    UserStep,
    WorkdirStep,
)

HASH = "a" * 64
NOW = datetime.now(UTC)
STORED = StoredFile(
    path=f"e2b-builds/{HASH}",
    size=1,
    sha256="b" * 64,
    media_type="application/x-tar",
    object_key="tenants/t/files/1",
    created_at=NOW,
    updated_at=NOW,
    expires_at=None,
)


def steps(*given: dict[str, Any], env: Mapping[str, str] | None = None) -> list[Step]:
    """Return the steps after those by which a build begins."""
    asked = [E2bStep.model_validate(each) for each in given]
    account = UnixAccount("user", "/home/user")
    first, second, *found = steps_of(asked, account, env or {}, {HASH: STORED})
    assert (first, second) == (UserStep("user"), WorkdirStep("/home/user", kept=False))
    return found


def step(kind: str, *args: str, **more: Any) -> dict[str, Any]:
    """Return a step as their clients send it."""
    return {"type": kind, "args": list(args), "force": False, **more}


def test_each_of_their_steps_is_one_of_ours() -> None:
    assert steps(
        step("RUN", "make"),
        step("ENV", "A", "1", "B", ""),
        step("ARG", "C", "2"),
        step("WORKDIR", "app"),
        step("USER", "root"),
        step("USER", "app"),
    ) == [
        RunStep("make", BASH),
        EnvStep({"A": "1", "B": ""}),
        EnvStep({"C": "2"}, kept=False),
        WorkdirStep("app"),
        UserStep("root"),
        UserStep("app"),
    ]


@pytest.mark.parametrize("name", ["root", "root:root"])
def test_a_template_whose_last_user_is_root_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(Invalid, match=r'set_user\("user"\)') as refused:
        steps(step("USER", "app"), step("USER", name), step("RUN", "make"))
    assert refused.value.field == "steps.1"
    steps(step("USER", name), step("RUN", "make", "root"), step("USER", "user"))


def test_steps_go_on_as_the_user_and_in_the_folder_of_the_base() -> None:
    account = UnixAccount("app", "/home/app")
    assert list(steps_of([], account, {}, {})) == [
        UserStep("app"), WorkdirStep("/home/app", kept=False)
    ]  # fmt: skip
    assert list(steps_of([], account, {}, {}, "/srv")) == [UserStep("app"), WorkdirStep("/srv")]


def test_a_command_of_another_user_changes_nobody_elses() -> None:
    found = steps(step("USER", "one"), step("RUN", "a", "root"), step("RUN", "b"))
    assert found == [
        UserStep("one"), UserStep("root"), RunStep("a", BASH), UserStep("one"), RunStep("b", BASH)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("/opt/bin:$PATH", "/opt/bin:/home/user/.local/bin:/usr/local/bin:/usr/bin:/bin"),
        ("$HOME/app", "/home/user/app"),
        ("${USER}s", "users"),
        ("$BASE-$EARLIER", "of the base-1"),
        ("<$UNSET>", "<>"),
        ("${UNSET:-other} ${BASE:-other}", "other of the base"),
        ("${UNSET:+other} ${BASE:+other}", " other"),
        (r"\$HOME $ $1 ${", "$HOME $ $1 ${"),
    ],
)
def test_a_variable_stands_for_what_was_set_before(text: str, value: str) -> None:
    """As in a Dockerfile, and in a working directory and a user's name, too."""
    env = {"BASE": "of the base"}
    earlier, new, workdir, user = steps(
        step("ARG", "EARLIER", "1"),
        step("ENV", "NEW", text, "SAME", "$NEW"),
        step("WORKDIR", text),
        step("USER", text),
        env=env,
    )
    assert earlier == EnvStep({"EARLIER": "1"}, kept=False)
    assert new == EnvStep({"NEW": value, "SAME": ""})
    assert (workdir, user) == (WorkdirStep(value), UserStep(value))


def test_a_command_is_left_to_its_shell() -> None:
    assert steps(step("RUN", "echo $HOME")) == [RunStep("echo $HOME", BASH)]


def test_a_value_that_repeats_itself_has_a_bound() -> None:
    twice = step("ENV", "A", "$A$A")
    with pytest.raises(Invalid, match="32768 bytes together") as refused:
        steps(step("ENV", "A", "x" * 1000), *[twice] * 40)
    assert refused.value.field == "steps.5"


@pytest.mark.parametrize("kind", ["ENV", "ARG"])
def test_all_variables_have_a_bound_before_they_are_made(kind: str) -> None:
    """They would have 195 MB: of 200 steps, each sets 32 variables to 30 KB."""
    names = [word for number in range(32) for word in (f"B{number}", "$A$A")]
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match="32768 bytes together"):
            steps(step(kind, "A", "x" * 15_000), *[step(kind, *names)] * 199)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 32 * 2**20


def test_a_value_that_is_too_long_is_never_made() -> None:
    """It would have 480 MB."""
    long = step("ENV", "A", "x" * 30_000)
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match="480000000 characters"):
            steps(long, step("ENV", "B", "$A" * 16_000))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 32 * 2**20


def test_files_are_those_that_were_stored() -> None:
    copied = steps(step("COPY", "app", "/srv/", "", "", filesHash=HASH))
    assert copied == [UnpackStep("/srv/", "app", STORED.object_key, STORED.sha256)]
    (given,) = steps(step("COPY", "app", "/srv/", "root:root", "0755", filesHash=HASH))
    assert isinstance(given, UnpackStep)
    assert (given.user, given.mode) == ("root:root", 0o755)


@pytest.mark.parametrize(
    "wrong",
    [
        step("RUN"),
        step("RUN", "a", "b", "c"),
        step("ENV", "A"),
        step("ENV", "A B", "1"),
        step("COPY", "a", "/b", filesHash="c" * 64),
        step("COPY", "a", "/b"),
        step("COPY", "a", "/b", "", "9", filesHash=HASH),
        step("EXPOSE", "80"),
    ],
    ids=lambda each: " ".join([each["type"], *each["args"]]),
)
def test_what_is_no_step_here_is_refused_by_its_number(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        steps(step("RUN", "true"), wrong)
    assert refused.value.field == "steps.1"
    assert refused.value.detail.startswith(f"{wrong['type']}: ")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"name": "a"}, ("a", ["default"])),
        ({"alias": "a"}, ("a", ["default"])),
        ({"name": "a:v1"}, ("a", ["v1"])),
        ({"name": "a", "tags": ["v1"]}, ("a", ["v1"])),
        ({"name": "a:v1", "tags": ["v1", "v2"]}, ("a", ["v1", "v2"])),
        ({"name": "3d_tools-v2"}, ("3d_tools-v2", ["default"])),
        ({"name": "_a-"}, ("_a-", ["default"])),
        ({"name": "a" * 128}, ("a" * 128, ["default"])),
    ],
)
def test_a_name_may_have_its_tag(body: dict[str, Any], named: tuple[str, list[str]]) -> None:
    assert E2bTemplate.model_validate(body).named() == named


@pytest.mark.parametrize("body", [{}, {"name": "A"}, {"name": "team/a"}, {"name": "a.b"}])
def test_another_name_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        E2bTemplate.model_validate(body).named()


def test_what_there_is_not_is_refused_by_its_name() -> None:
    with pytest.raises(ValidationError, match="is not supported here"):
        E2bBuild.model_validate({"fromImageRegistry": "x"})


def test_what_begins_in_a_sandbox_runs_by_bash_as_a_login_shell() -> None:
    """A base's commands hold if neither is given."""
    body = {"startCmd": "[[ -n 'it' ]] && serve", "readyCmd": "sleep 1"}
    assert E2bBuild.model_validate(body).startup == Startup(
        """exec /bin/bash -l -c '[[ -n '"'"'it'"'"' ]] && serve'""",
        "exec /bin/bash -l -c 'sleep 1'",
        60,
    )
    assert E2bBuild.model_validate({}).startup is None
