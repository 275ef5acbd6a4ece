"""A listing of a sandbox's files is written entry by entry, and is what its view would be."""

from datetime import UTC, datetime

import pytest

from runner.api.sandbox_files import encoded
from runner.api.sandbox_views import FileEntryView, FolderView
from runner.door.streams import FileListing
from runner.words.living import FileEntry

AT = datetime(2026, 1, 5, 12, 0, 1, 250_000, UTC)
FILES = (
    FileEntry('/workspace/"ü"\n', "file", 7, 0o644, AT),
    FileEntry("/workspace/link", "link", 0, 0o777, AT, "/etc/passwd"),
)


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("files", [(), FILES], ids=["empty", "two"])
def test_it_is_what_its_view_would_be(files: tuple[FileEntry, ...], *, more: bool) -> None:
    view = FolderView(items=list(map(FileEntryView.of, files)), more=more)
    assert FolderView.model_validate_json(encoded(FileListing(files, more))) == view
