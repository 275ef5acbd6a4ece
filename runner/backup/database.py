"""PostgreSQL's own programs that dump and restore, and the roles that a dump refers to."""

import asyncio
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from runner.store.db import Database
from runner.store.migrations import migrate
from runner.words.errors import SetupError, StoreUnavailable
from runner.words.ids import new_id

COUNTING = timedelta(minutes=10)
"""How long a statement may take that reads a whole table."""
SETS_TIME_OUT = 17
"""From this version on, `pg_restore` sets `transaction_timeout`, which older servers refuse."""
SPENT_BY_USE = frozenset(
    {"invitations", "node_invitations", "operator_sessions", "password_resets", "sessions"}
)
"""Tables of tokens that end when they are used, withdrawn or left. No row of them is restored: what
has ended since the backup would be good again, and nobody could tell which."""
_DATA = re.compile(r"\d+; \d+ \d+ TABLE DATA \S+ (\S+) ")
"""A line of `pg_restore --list` that stands for the rows of a table."""
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_LAST_WORDS = 600
_ESCAPED, _ESCAPE = re.compile(r"[:\\]"), r"\\\g<0>"
"""What a line of a password file must write with a backslash (PostgreSQL's manual, 32.16)."""


@dataclass(frozen=True, slots=True)
class DatabaseLogins:
    """Logins to one database. `others` get their passwords when roles are made."""

    superuser: SecretStr
    owner: SecretStr
    others: tuple[SecretStr, ...] = ()

    @property
    def owner_name(self) -> str:
        """The role that owns the schema."""
        return str(conninfo_to_dict(self.owner.get_secret_value()).get("user"))


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """`pg_dump` and `pg_restore` of one version."""

    folder: Path
    version: int

    @classmethod
    def choose(cls, folders: Sequence[Path], server: int, dump: int = 0) -> "PostgresPrograms":
        """Return the first ones that fit to a server, and to a dump if one is to be restored.

        They must not be older than either, and what they write must not need a newer server.
        Raises SetupError if there are none.
        """
        if server < SETS_TIME_OUT <= dump:
            raise SetupError(
                f"`pg_dump` {dump} made this backup, so PostgreSQL {server} cannot restore it: "
                f"restore into PostgreSQL {SETS_TIME_OUT} or newer"
            )
        at_least = max(server, dump)
        versions = {}
        for folder in folders:
            if (version := _version(folder / "pg_dump")) is not None:
                versions[folder] = version
                fits = version >= at_least and (version < SETS_TIME_OUT or server >= SETS_TIME_OUT)
                if fits and _version(folder / "pg_restore") == version:
                    return cls(folder, version)
        there = ", ".join(f"{version} in {folder}" for folder, version in versions.items())
        below = f" but older than {SETS_TIME_OUT}" if server < SETS_TIME_OUT else ""
        raise SetupError(
            f"this needs `pg_dump` and `pg_restore` of PostgreSQL {at_least} or newer{below}; "
            f"there is {there or 'none'}: install the client programs of that version"
        )

    async def dump(self, url: SecretStr, snapshot: str, file: Path) -> None:
        """Write the database, as the snapshot sees it, in PostgreSQL's own format.

        Raises StoreUnavailable with the reason.
        """
        await self._run("pg_dump", url, "--format=custom", f"--snapshot={snapshot}",
                        "--lock-wait-timeout=60s", f"--file={file}")  # fmt: skip

    async def restore(self, url: SecretStr, file: Path) -> None:
        """Restore a dump but the rows of `SPENT_BY_USE` into an empty database, or nothing.

        Raises StoreUnavailable with the reason.
        """
        listed = await self._run("pg_restore", url, "--list", str(file))
        with tempfile.NamedTemporaryFile("w", prefix="runner-") as wanted:
            wanted.write(without_spent(listed.decode()))
            wanted.flush()
            await self._run(
                "pg_restore", url, "--single-transaction", "--exit-on-error",
                f"--use-list={wanted.name}", str(file),
            )  # fmt: skip

    async def _run(self, program: str, url: SecretStr, *arguments: str) -> bytes:
        login = {name: str(part) for name, part in conninfo_to_dict(url.get_secret_value()).items()}
        password = login.pop("password", None)
        with tempfile.NamedTemporaryFile("w", prefix="runner-") as file:
            # Everybody on the host can read a command line, but not this file (mkstemp's mode).
            if password is not None:
                file.write(f"*:*:*:*:{_ESCAPED.sub(_ESCAPE, password)}\n")
                file.flush()
                login["passfile"] = file.name
            process = await asyncio.create_subprocess_exec(
                str(self.folder / program),
                "--no-password",
                f"--dbname={make_conninfo(**login)}",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                printed, said = await process.communicate()
            except BaseException:
                process.kill()
                await process.wait()
                raise
        if process.returncode:
            why = " ".join(said.decode(errors="replace").split())[-_LAST_WORDS:]
            raise StoreUnavailable(f"{program} failed: {why}")
        return printed


def without_spent(listed: str) -> str:
    """Return what `pg_restore --list` prints without the rows of `SPENT_BY_USE`."""
    lines = listed.splitlines(keepends=True)
    return "".join(
        line for line in lines if (m := _DATA.match(line)) is None or m[1] not in SPENT_BY_USE
    )


async def require_superuser(database: Database, *, to_restore: bool) -> None:
    """Raise SetupError if this login does not see every tenant's rows, or cannot make a database.

    Row-level security would leave the others out silently.
    """
    async with database.no_tenant() as tx:
        row = await tx.one("backup.sees_all")
    if row is None or not row["makes_roles" if to_restore else "sees_all"]:
        raise SetupError(
            "RUNNER_DATABASE_SUPERUSER_URL: this login is no superuser of PostgreSQL, and would "
            "not see all rows"
        )


async def relations(database: Database) -> list[str]:
    """Return the names of the tables, views and sequences that the database holds."""
    async with database.no_tenant() as tx:
        return [row["name"] for row in await tx.all("backup.relations")]


async def server_version(database: Database) -> int:
    """Return the major version of the server."""
    async with database.no_tenant() as tx:
        row = await tx.one("backup.server")
    return int(row["server"]) if row else 0


def make_roles(logins: DatabaseLogins) -> None:
    """Make the roles that a dump refers to, with their passwords and memberships.

    Roles belong to the whole server, so the migrations make them in an empty database that is
    dropped again. Raises StoreUnavailable if PostgreSQL refuses.
    """
    name = sql.Identifier(f"runner_roles_{new_id().hex}")
    scratch = make_conninfo(logins.owner.get_secret_value(), dbname=name.as_string(None).strip('"'))
    try:
        with psycopg.connect(logins.superuser.get_secret_value(), autocommit=True) as superuser:
            owner = sql.Identifier(logins.owner_name)
            superuser.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'").format(
                    name, owner
                )
            )
            try:
                migrate(SecretStr(scratch), *logins.others)
            finally:
                superuser.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
    except psycopg.Error as error:
        why = " ".join(str(error).split())
        raise StoreUnavailable(f"PostgreSQL did not make the roles: {why}") from error


def gather_statistics(superuser: SecretStr) -> None:
    """Let PostgreSQL look at restored tables: a dump holds no statistics for its planner."""
    with psycopg.connect(superuser.get_secret_value(), autocommit=True) as connection:
        connection.execute("ANALYZE")


def _version(program: Path) -> int | None:
    try:
        said = subprocess.run(  # noqa: S603 - a program of PostgreSQL, without arguments of others
            [program, "--version"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = _VERSION.search(said)
    return int(found[1]) if found else None
