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
    monkeypatch.setattr(inside, "ROOT", tmp_path / "root")
    inside.gather({"home": home, "user": None, "root": False})
    assert {str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*") if each.is_file()} == {
        "opt/skeleton/own/file", "srv/kept"
    }  # fmt: skip
    assert capsys.readouterr().out == "not kept, as builds use /mnt themselves: /mnt/other\n"


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return the folder of the changes and the whole root of a build of the image's own `agent`."""
    agent = pwd.struct_passwd(("agent", "x", 70_001, 70_001, "", "/workspace", "/bin/bash"))
    upper, root = tmp_path / "upper", tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "home/app").mkdir(parents=True)
    (root / "home/app/own").write_text("app's")
    (root / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nagent:x:70001:70001::/workspace:/bin/bash\nnot a user\n"
        "app:x:1000:1000::/home/app:/bin/sh\nsite:x:1001:1001::/srv/site:/bin/sh\n"
        "toor:x:0:0::/home/toor:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\napp:x:1000:\n")
    monkeypatch.setattr(inside, "UPPER", upper)
    monkeypatch.setattr(inside, "ROOT", root)
    monkeypatch.setattr(pwd, "getpwall", lambda: [agent])
    return upper, root


@pytest.mark.parametrize("user", [None, "agent"])
def test_the_home_stays_that_of_the_image(user: str | None, roots: tuple[Path, Path]) -> None:
    upper, _ = roots
    (upper / "workspace").mkdir(parents=True)
    (upper / "workspace/mine").write_text("agent's")
    inside.gather({"home": "/workspace", "user": user, "root": False})
    assert [each.name for each in (upper / inside.SKELETON).iterdir()] == ["mine"]


def test_another_users_home_is_the_one_that_sandboxes_begin_with(
    roots: tuple[Path, Path],
) -> None:
    """All that is there, whichever step or base put it there. The image's own home is left."""
    upper, _ = roots
    (upper / "workspace").mkdir(parents=True)
    (upper / "workspace/mine").write_text("agent's")
    inside.gather({"home": "/workspace", "user": "app", "root": False})
    assert [each.name for each in (upper / inside.SKELETON).iterdir()] == ["own"]
    assert (upper / "workspace/mine").is_file()


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ("nobodys", "there is no user nobodys: make it in a step"),
        ("site", "the home of the user site is /srv/site: it must be /home/site"),
        ("toor", "the user toor is root, and nobody is root in a sandbox"),
        ("linked", "/home/linked is a link"),
    ],
)
def test_a_user_whom_sandboxes_cannot_have_fails_the_build(
    user: str, why: str, roots: tuple[Path, Path]
) -> None:
    _, root = roots
    with (root / "etc/passwd").open("a") as accounts:
        accounts.write("linked:x:1002:1002::/home/linked:/bin/sh\n")
    (root / "home/linked").symlink_to("/etc")
    with pytest.raises(ValueError, match=why):
        inside.gather({"home": "/workspace", "user": user, "root": False})


@pytest.mark.parametrize(
    ("user", "home", "link"),
    [
        (None, "/workspace", "workspace"),
        ("app", "/home/app", "home/app"),
        ("app", "/home/app", "home"),
    ],
    ids=["the image's own", "another user's", "a folder above"],
)
def test_a_build_that_leaves_a_link_as_home_fails(
    user: str | None, home: str, link: str, roots: tuple[Path, Path], tmp_path: Path
) -> None:
    """Nothing is written where the link leads to. The control: a link inside the home stays one."""
    _, root = roots
    (root / "workspace").mkdir()
    (root / "home/app/data").symlink_to("/srv/data")
    inside.gather({"home": "/workspace", "user": user, "root": False})
    outside = tmp_path / "outside"
    (root / link).rename(outside)
    before = sorted(outside.rglob("*"))
    (root / link).symlink_to(outside)
    with pytest.raises(ValueError, match=f"^/{link} is a link: the home {home} of the template's"):
        inside.gather({"home": "/workspace", "user": user, "root": False})
    assert sorted(outside.rglob("*")) == before


@pytest.mark.parametrize(
    ("home", "there"),
    [
        ("/home/app", True), ("/home/linked", False), ("/home/..", False), ("/home/app/..", False),
        ("/home/missing", False),
    ],
)  # fmt: skip
def test_only_a_folder_that_is_reached_by_no_other_way_is_a_home(
    home: str, roots: tuple[Path, Path], *, there: bool
) -> None:
    """All that is below a home becomes its user's: that must not be the whole root."""
    _, root = roots
    (root / "home/linked").symlink_to(root / "home/app")
    assert inside._folder(home) == (root / home.lstrip("/") if there else None)


def test_the_log_says_that_nobody_is_root(
    roots: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for root in (False, True):
        inside.gather({"home": "/workspace", "user": None, "root": root})
    assert capsys.readouterr().out == (
        "nobody is root in a sandbox: the last user is of the steps alone\n"
    )


def test_users_that_steps_have_made_are_there_in_builds_on_the_template(
    roots: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is in the sandbox already stays who they are."""
    upper, _ = roots
    inside.gather({"home": "/workspace", "user": None, "root": False})
    monkeypatch.setattr(inside, "KEPT_ACCOUNTS", str(upper / inside.KEPT_ACCOUNTS))
    known = "root:x:0:0:::\nagent:x:70002:70002::/workspace:\n"
    kept = inside.kept_accounts("passwd", known)
    assert [line.partition(":")[0] for line in kept.splitlines()] == ["app", "site", "toor"]
    assert inside.kept_accounts("group", "") == "app:x:1000:\n"
    assert inside.kept_accounts("shadow", "") == ""


def test_a_build_has_the_users_that_package_managers_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is in the sandbox already stays who they are."""
    monkeypatch.setattr(inside, "DEBIANS", tmp_path)
    (tmp_path / "passwd.master").write_text("root:*:0:0::/root:/bin/bash\n_apt:*:42:65534:::\n")
    assert inside.system_accounts("passwd", "root:x:0:0:::\n") == "_apt:*:42:65534:::\n"
    assert inside.system_accounts("group", "root:x:0:\n") == ""
