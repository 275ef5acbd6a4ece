"""Each sandbox has a user of its own."""

from pathlib import Path

from runner.sandbox.engine.users import Users, container_name, taken_ids, write_accounts
from runner.words.sandbox import UnixAccount


def test_every_id_comes_before_one_comes_again() -> None:
    """Ids are used in turn, from any beginning."""
    users = Users(range(100, 104))
    dealt = [users.next() for _ in range(8)]
    assert set(dealt[:4]) == {100, 101, 102, 103}
    assert dealt[4:] == dealt[:4]


def test_a_taken_id_is_passed_over() -> None:
    """There is none if all are taken."""
    users = Users(range(100, 103))
    assert {users.next({100, 102}) for _ in range(5)} == {101}
    assert users.next({100, 101, 102}) is None


def test_workers_begin_at_different_ids() -> None:
    """Otherwise each launch of one worker would meet the other's containers."""
    first = {Users(range(4096)).next() for _ in range(20)}
    assert len(first) > 1


def test_what_is_taken_is_told_by_the_names_of_containers() -> None:
    """Names of other containers mean nothing."""
    names = [container_name(70_001), "postgres", "runner-api-1", "runner-", container_name(70_004)]
    assert taken_ids(names) == {70_001, 70_004}


def test_the_accounts_name_one_user_and_can_be_read_by_it(tmp_path: Path) -> None:
    """This holds for any umask of the worker."""
    write_accounts(tmp_path, 70_001, UnixAccount())
    users = [line.split(":") for line in (tmp_path / "passwd").read_text().splitlines()]
    assert [user[0] for user in users] == ["root", "agent", "nobody"]
    assert users[1][2:] == ["70001", "70001", "", "/workspace", "/bin/bash"]
    assert "agent:x:70001:\n" in (tmp_path / "group").read_text()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


def test_an_image_may_call_its_user_and_home_otherwise(tmp_path: Path) -> None:
    """Only the name and the folder differ: the number is the sandbox's."""
    write_accounts(tmp_path, 70_001, UnixAccount("user", "/home/user"))
    users = (tmp_path / "passwd").read_text().splitlines()
    assert users[1] == "user:x:70001:70001::/home/user:/bin/bash"
    assert "user:x:70001:\n" in (tmp_path / "group").read_text()
