"""Which version of PostgreSQL's programs a backup or a restore uses."""

from pathlib import Path

import pytest

from runner.backup.database import PostgresPrograms
from runner.embedded.postgres import every_programs
from runner.words.errors import SetupError


@pytest.mark.parametrize(("server", "dump", "used"), [(15, 0, 16), (16, 16, 16), (17, 0, 18),
                                                      (18, 16, 18), (17, 18, 18)])  # fmt: skip
def test_programs_that_are_new_enough_and_ask_no_older_server_for_what_it_lacks(
    server: int, dump: int, used: int
) -> None:
    """`pg_restore` 17 and newer sets a parameter that older servers do not know."""
    assert PostgresPrograms.choose(every_programs(), server, dump).version == used


def test_a_dump_of_newer_programs_is_refused_for_an_older_server() -> None:
    with pytest.raises(SetupError, match="restore into PostgreSQL 17 or newer"):
        PostgresPrograms.choose(every_programs(), 15, 18)


@pytest.mark.parametrize(("server", "wanted"), [(99, "99 or newer"), (15, "15 or newer but older")])
def test_what_is_wanted_and_what_there_is_are_told(
    tmp_path: Path, server: int, wanted: str
) -> None:
    for name in ("pg_dump", "pg_restore"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) 18.4'\n")
        (tmp_path / name).chmod(0o700)
    with pytest.raises(SetupError, match=rf"PostgreSQL {wanted}.*there is 18 in {tmp_path}"):
        PostgresPrograms.choose([tmp_path], server)
