"""A build gathers its steps' changes, apart from those that need a kernel."""

import os
import pwd
from pathlib import Path

import pytest

from runner.templates import inside


@pytest.mark.parametrize("home", ["/workspace", "/home/user", "/mnt/data"])
def test_a_home_is_kept_wherever_it_is(
    home: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also below /mnt, of which nothing else is kept: the build's log says so."""
    monkeypatch.setattr(inside, "UPPER", tmp_path)
    for path in (f"{home}/own/file", "/mnt/other", "/tmp/x", "/srv/kept"):  # noqa: S108 - below
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    # A pipe stands for the mark that the kernel leaves of what was removed: a device.
    os.mkfifo(tmp_path / home.lstrip("/") / "own" / "gone")
    inside.gather({"home": home, "user": None})
    assert {str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*") if each.is_file()} == {
        "opt/skeleton/own/file", "srv/kept"
    }  # fmt: skip
    assert capsys.readouterr().out == "not kept, as builds use /mnt themselves: /mnt/other\n"


@pytest.mark.parametrize(
    ("user", "told"),
    [
        (None, ""),
        ("agent", ""),
        ("agent:agent", ""),
        ("root", "processes of its sandboxes run as agent: a sandbox has no user root\n"),
        ("made", "processes of its sandboxes run as agent: a sandbox has no user made\n"),
    ],
)
def test_the_log_says_if_sandboxes_cannot_have_the_last_user(
    user: str | None,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    agent = pwd.struct_passwd(("agent", "x", 1000, 1000, "", "/workspace", "/bin/sh"))
    monkeypatch.setattr(inside, "UPPER", tmp_path)
    monkeypatch.setattr(pwd, "getpwall", lambda: [agent])
    inside.gather({"home": "/workspace", "user": user})
    assert capsys.readouterr().out == told


def test_a_build_has_the_users_that_package_managers_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is in the sandbox already stays who they are."""
    monkeypatch.setattr(inside, "DEBIANS", tmp_path)
    (tmp_path / "passwd.master").write_text("root:*:0:0::/root:/bin/bash\n_apt:*:42:65534:::\n")
    assert inside.system_accounts("passwd", "root:x:0:0:::\n") == "_apt:*:42:65534:::\n"
    assert inside.system_accounts("group", "root:x:0:\n") == ""
