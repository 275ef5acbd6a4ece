"""Git: the SDK's methods are commands in the sandbox. The remote is a folder there."""

from typing import Any

from tests.support.e2b_sdks.case import Cases
from tests.support.e2b_sdks.world import World

CASES = Cases()
REPO = "/home/user/repository"
BARE = "/home/user/bare.git"
COPY = "/home/user/copy"


async def made(w: World) -> Any:
    """Return the SDK's git, with a repository that has a commit."""
    git = w.box.git
    await w(w.box.commands.run(f"rm -rf {REPO} {BARE} {COPY}"))
    await w(git.init(REPO, initial_branch="main"))
    await w(git.configure_user("An agent", "agent@example.com", scope="local", path=REPO))
    await w(w.box.files.write(f"{REPO}/a.txt", "first\n"))
    await w(git.add(REPO))
    await w(git.commit(REPO, "A first commit"))
    return git


@CASES.case("git.init")
async def git_changes(w: World) -> None:
    git = await made(w)
    await w(w.box.files.write(f"{REPO}/a.txt", "second\n"))
    await w(w.box.files.write(f"{REPO}/b.txt", "new\n"))
    status = await w(git.status(REPO))
    assert {each.name for each in status.file_status} == {"a.txt", "b.txt"}, status
    await w(git.restore(REPO, paths=["a.txt"]))
    assert await w(w.box.files.read(f"{REPO}/a.txt")) == "first\n"
    await w(git.add(REPO, files=["b.txt"]))
    await w(git.reset(REPO, mode="hard"))
    assert (await w(git.status(REPO))).file_status == []


@CASES.case("git.init")
async def git_branches(w: World) -> None:
    git = await made(w)
    await w(git.create_branch(REPO, "other"))
    await w(git.checkout_branch(REPO, "main"))
    found = await w(git.branches(REPO))
    assert (found.current_branch, set(found.branches)) == ("main", {"main", "other"}), found
    await w(git.delete_branch(REPO, "other"))
    assert (await w(git.branches(REPO))).branches == ["main"]


@CASES.case("git.init", "git.remote_get")
async def git_remotes(w: World) -> None:
    git = await made(w)
    await w(git.init(BARE, bare=True, initial_branch="main"))
    await w(git.remote_add(REPO, "origin", BARE))
    assert await w(git.remote_get(REPO, "origin")) == BARE
    await w(git.push(REPO, remote="origin", branch="main"))
    await w(git.clone(BARE, path=COPY))
    assert await w(w.box.files.read(f"{COPY}/a.txt")) == "first\n"
    await w(w.box.files.write(f"{REPO}/a.txt", "second\n"))
    await w(git.add(REPO))
    await w(git.commit(REPO, "A second commit"))
    await w(git.push(REPO, remote="origin", branch="main"))
    await w(git.pull(COPY))
    assert await w(w.box.files.read(f"{COPY}/a.txt")) == "second\n"


@CASES.case("git.init", "git.dangerously_authenticate")
async def git_settings(w: World) -> None:
    git = await made(w)
    await w(git.set_config("core.editor", "true", scope="local", path=REPO))
    assert await w(git.get_config("core.editor", scope="local", path=REPO)) == "true"
    await w(git.dangerously_authenticate("somebody", "a-token", host="git.example.com"))
    stored = (await w(w.box.commands.run("cat ~/.git-credentials"))).stdout
    assert "somebody:a-token@git.example.com" in stored
    await w(w.box.commands.run("rm ~/.git-credentials"))


@CASES.case("git.init")
async def git_has_an_author(w: World) -> None:
    git = await made(w)
    await w(git.configure_user("Another agent", "another@example.com", scope="local", path=REPO))
    await w(git.commit(REPO, "A second commit", allow_empty=True))
    told = await w(w.box.commands.run(f"git -C {REPO} log -1 --format='%an %ae'"))
    assert told.stdout == "Another agent another@example.com\n", told
