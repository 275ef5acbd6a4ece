"""What is kept from one run of tests to the next is made once, and never half."""

import os
import threading
import time
from pathlib import Path

import pytest

from tests.support.kept import STAMP, UNUSED_S, kept


def test_a_content_is_made_once_and_another_content_is_another_folder(tmp_path: Path) -> None:
    made: list[Path] = []
    first, again = (kept("a", made.append, below=tmp_path) for _ in range(2))
    other = kept("b", made.append, below=tmp_path)
    assert first == again != other
    assert made == [first, other]


def test_what_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError("broken off")

    with pytest.raises(RuntimeError):
        kept("a", fails, below=tmp_path)
    folder = kept("a", lambda made: (made / "whole").touch(), below=tmp_path)
    assert {each.name for each in folder.iterdir()} == {"whole", STAMP}


def test_only_one_of_several_makes_it_and_the_others_wait(tmp_path: Path) -> None:
    made: list[Path] = []

    def slowly(folder: Path) -> None:
        time.sleep(0.1)
        (folder / "whole").touch()
        made.append(folder)

    def use() -> None:
        assert (kept("a", slowly, below=tmp_path) / "whole").exists()

    threads = [threading.Thread(target=use) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(made) == 1


def test_what_nobody_has_used_for_a_while_goes_when_something_new_comes(tmp_path: Path) -> None:
    old, used = (kept(name, lambda _: None, below=tmp_path) for name in ("old", "used"))
    os.utime(old / STAMP, (0, time.time() - UNUSED_S - 1))
    kept("used", lambda _: None, below=tmp_path)
    assert old.exists()
    new = kept("new", lambda _: None, below=tmp_path)
    assert (old.exists(), used.exists(), new.exists()) == (False, True, True)
