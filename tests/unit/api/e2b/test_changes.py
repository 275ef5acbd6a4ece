"""Changes of files: described while that is cheap, and told in any case."""

from typing import Any, cast

import pytest

from runner.api.e2b.daemon import tree
from runner.api.e2b.daemon.connect import Code, ConnectError
from runner.api.e2b.daemon.tree import MAX_DESCRIBED, Looks, Tree
from runner.door.streams import FileChanges
from runner.words.errors import FileRefused
from runner.words.living import ChangeKind, FileChange, FileEntry


class Sandbox(Tree):
    """A sandbox in which no file is there any more, and which counts who asks."""

    asked = 0

    async def stat(self, path: str) -> FileEntry:
        """Find nothing."""
        type(self).asked += 1
        raise FileRefused("ENOENT", path)


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Return a sandbox."""
    monkeypatch.setattr(Sandbox, "asked", 0)
    return Sandbox(cast(Any, None), cast(Any, None))


def changes(count: int, kind: ChangeKind = "written", *, lost: bool = False) -> FileChanges:
    """Return so many changes."""
    return FileChanges(tuple(FileChange(kind, f"/r/{n}", folder=False) for n in range(count)), lost)


async def told(sandbox: Sandbox, seen: FileChanges, looks: Looks | None) -> list[str]:
    """Return the names that are told."""
    return [each["name"] async for each in sandbox.changes("/r", seen, looks)]


async def test_of_many_changes_the_first_are_described_and_all_are_told(sandbox: Sandbox) -> None:
    many = 4 * MAX_DESCRIBED
    assert await told(sandbox, changes(many), Looks()) == [str(n) for n in range(many)]
    assert sandbox.asked == MAX_DESCRIBED


@pytest.mark.parametrize("kind", ["removed", "moved_from"])
async def test_what_is_gone_uses_no_look(sandbox: Sandbox, kind: ChangeKind) -> None:
    looks = Looks()
    assert len(await told(sandbox, changes(1000, kind), looks)) == 1000
    await told(sandbox, changes(1), looks)
    assert sandbox.asked == 1
    await told(sandbox, changes(1), None)
    assert sandbox.asked == 1


async def test_a_stream_describes_so_many_each_second(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(tree, "monotonic", lambda: now)
    looks = Looks(each_s=1.0)
    for _ in range(3):
        await told(sandbox, changes(MAX_DESCRIBED), looks)
    assert sandbox.asked == MAX_DESCRIBED
    now += 1
    await told(sandbox, changes(2 * MAX_DESCRIBED), looks)
    assert sandbox.asked == 2 * MAX_DESCRIBED


async def test_a_loss_is_told_after_what_is_known(sandbox: Sandbox) -> None:
    with pytest.raises(ConnectError) as failed:
        await told(sandbox, changes(3, lost=True), Looks())
    assert failed.value.code is Code.DATA_LOSS
