"""A node's files of a template's image do not outlive a killed process."""

import os
import time
from pathlib import Path

from runner.node.stock.templates import ABANDONED_S, remove_abandoned


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    """Archives are not sealed there. One of which an image is being made stays."""
    for name, age_s in (("left", ABANDONED_S + 60), ("used", ABANDONED_S - 60)):
        scratch = tmp_path / name
        scratch.mkdir()
        (scratch / "content").write_bytes(b"a tenant's files")
        then = time.time() - age_s
        os.utime(scratch, (then, then))
    remove_abandoned(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["used"]


def test_a_node_that_never_made_one_has_nothing_to_remove(tmp_path: Path) -> None:
    remove_abandoned(tmp_path / "none")
