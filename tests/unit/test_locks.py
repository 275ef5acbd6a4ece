"""Nobody else can take the lock by which a process shows that it runs."""

import os
import pwd
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.base.locks import lock_file
from runner.embedded.hold import held, is_held
from runner.words.errors import SetupError

SHARED = """
import fcntl, os, struct, sys
file = open(sys.argv[1])
fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
print("locked", flush=True)
sys.stdin.read()
"""
"""Takes a shared lock of the open file (37 is F_OFD_SETLK) until its input ends."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that every user may look into."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def another_user(path: Path) -> "subprocess.Popen[str]":
    """Try to lock a file as the user `nobody`."""
    user = pwd.getpwnam("nobody")
    # Not the environment's link to it, which may be in a folder that only root may look into.
    python = Path(sys.executable).resolve()
    return subprocess.Popen(
        [python, "-I", "-S", "-c", SHARED, str(path)],
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=(),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("before", [None, 0o644])
def test_another_user_can_neither_block_a_stack_nor_pass_for_one(
    folder: Path, before: int | None
) -> None:
    """This also holds where an earlier release left a file that everybody may read."""
    path = folder / "run" / "stack.lock"
    if before is not None:
        path.parent.mkdir()
        path.touch()
        path.chmod(before)
    with held(folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    said, why = another_user(path).communicate(timeout=30)
    assert said == ""
    assert "PermissionError" in why
    assert not is_held(folder)
    with held(folder):
        pass


def test_a_file_that_all_may_read_would_let_them(folder: Path) -> None:
    """The control: with such a file, the stack seems to run, and cannot be started."""
    path = folder / "run" / "stack.lock"
    with held(folder):
        pass
    path.chmod(0o644)
    with another_user(path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n", other.communicate(timeout=30)
        assert is_held(folder)
        with pytest.raises(SetupError), held(folder):
            pass
        other.communicate("", timeout=30)


def test_what_a_lock_file_says_is_kept_until_it_is_said_anew(tmp_path: Path) -> None:
    """The file is opened for locking before its content is replaced."""
    path = tmp_path / "run" / "a.lock"
    with lock_file(path) as file:
        file.write("said")
    with lock_file(path) as file:
        assert file.read() == "said"
        assert not os.get_inheritable(file.fileno())
