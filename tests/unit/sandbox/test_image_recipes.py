"""A recipe decides the contents of an image, before anything is built."""

from pathlib import Path

import pytest

from runner.base.recipe import Recipe, read_recipe
from runner.sandbox.engine.rootfs import apt_sources, mmdebstrap_command
from runner.words.errors import SetupError
from runner.words.sandbox import UnixAccount


def test_packages_come_from_the_hosts_own_sources_of_its_release(tmp_path: Path) -> None:
    """Files that name the release as a suite, and no other vendor's."""
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text("Suites: bookworm bookworm-updates\n")
    (folder / "vendor.list").write_text("deb http://vendor.example cloud-bookworm main\n")
    (folder / "old.list").write_text("deb http://old.example bullseye main\n")
    (folder / "debian.sources.save").write_text("Suites: bookworm\n")
    assert apt_sources("bookworm", tmp_path) == [folder / "debian.sources"]
    (tmp_path / "sources.list").write_text("deb http://mirror.example bookworm-security main\n")
    assert apt_sources("bookworm", tmp_path)[0] == tmp_path / "sources.list"


def test_a_host_without_sources_of_its_release_is_a_setup_error(tmp_path: Path) -> None:
    """It names the folder that was looked through."""
    with pytest.raises(SetupError, match=str(tmp_path)):
        apt_sources("bookworm", tmp_path)


def test_the_command_leaves_out_what_is_excluded_and_takes_setuid_bits_off() -> None:
    """Packages, exclusions and hooks all reach it."""
    recipe = Recipe(packages=("bash", "git"), exclude=("/usr/share/doc/*",), bytecode=("/usr/lib",))
    command = mmdebstrap_command(recipe, Path("root.tar"), sources=[Path("/etc/apt/a.list")])
    assert "--include=bash,git,python3,python3-greenlet" in command
    assert "--dpkgopt=path-exclude=/usr/share/doc/*" in command
    assert any("chmod a-s" in part for part in command)
    assert command[-2:] == ["root.tar", "/etc/apt/a.list"]


def test_a_recipe_that_is_like_another_adds_to_it(tmp_path: Path) -> None:
    """Packages, and exceptions to what the other leaves out; what is preloaded is its own."""
    texts = {
        "base": 'packages = ["bash"]\nexclude = ["/doc/*"]\npreload = ["numpy"]\njavascript = true',
        "more": 'like = "base"\npackages = ["git"]\ninclude = ["/doc/git*"]\ncommands = ["true"]',
        "most": 'like = "more"\nhome = "/home/user"\nuser = "user"',
        "egg": 'like = "hen"',
        "hen": 'like = "egg"',
    }
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.toml").write_text(text)
    recipe = read_recipe(tmp_path, "more")
    assert (recipe.packages, recipe.preload) == (("bash", "git"), ())
    assert recipe.languages == {"python", "bash", "javascript"}
    command = mmdebstrap_command(recipe, Path("root.tar"), sources=[])
    excluded = command.index("--dpkgopt=path-exclude=/doc/*")
    assert excluded < command.index("--dpkgopt=path-include=/doc/git*")
    assert any(part.startswith('--customize-hook=chroot "$1" sh -ec true') for part in command)
    assert recipe.account == UnixAccount()
    most = read_recipe(tmp_path, "most")
    assert most.account == UnixAccount("user", "/home/user")
    assert mmdebstrap_command(most, Path("root.tar"), sources=[]) == command
    with pytest.raises(SetupError, match="in a circle: hen, egg"):
        read_recipe(tmp_path, "hen")


@pytest.mark.parametrize(
    "line",
    [
        'home = "/etc"',
        'home = "/mnt"',
        'home = "/home/../etc"',
        'home = "/home"',
        'user = "root"',
        'user = "a:0:0"',
    ],
)
def test_a_home_or_a_user_that_is_somebody_elses_is_refused(tmp_path: Path, line: str) -> None:
    """A folder of the system's is not covered, and nobody is called root."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.toml").write_text(f'packages = ["bash"]\n{line}')
    with pytest.raises(SetupError, match=r"recipe\.toml is not a recipe"):
        read_recipe(tmp_path, "mine")
