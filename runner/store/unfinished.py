"""Bytes that dead writers left in the store, which no listing of objects shows.

A local store writes to `<key>#<number>` beside the object, and then renames that. S3 keeps the
parts of an upload until it is completed or aborted. Neither is cleaned up when its writer is
killed.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

_STAGED = re.compile(r"(.+)#\d+")


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A write that has not ended. `touched_at` is when it began or last got a byte."""

    key: str
    touched_at: datetime
    reference: str


class Writes(Protocol):
    """The writes that are in progress or were left behind in a store."""

    async def below(self, prefix: str) -> list[Unfinished]:
        """Return the unfinished writes of keys below the prefix."""

    async def abort(self, found: Unfinished) -> None:
        """End a write and remove its bytes; it is no error if there is none."""


@dataclass(frozen=True, slots=True)
class StagedFiles:
    """Unfinished writes of a local store."""

    root: Path

    async def below(self, prefix: str) -> list[Unfinished]:
        """Return the files with the names that obstore uses before it renames them."""
        return await asyncio.to_thread(lambda: list(self._below(prefix)))

    async def abort(self, found: Unfinished) -> None:
        """Remove the file, and the folders that were made only for it."""
        await asyncio.to_thread(self._remove, Path(found.reference))

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # Stop at a folder that has something else in it.
            for folder in path.relative_to(self.root).parents[:-1]:
                (self.root / folder).rmdir()

    def _below(self, prefix: str) -> Iterator[Unfinished]:
        for path in (self.root / prefix).rglob("*#*"):
            named = _STAGED.fullmatch(str(path.relative_to(self.root)))
            try:
                touched = path.stat().st_mtime
            except FileNotFoundError:
                continue  # Renamed meanwhile: finished.
            if named is not None:
                yield Unfinished(named[1], datetime.fromtimestamp(touched, UTC), str(path))


class UploadsInParts:
    """Unfinished writes of S3, through botocore: obstore cannot list or abort others' uploads."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        """Use the bucket and prefix of `url`, with the options of obstore's store."""
        parts = urlsplit(url)
        base = parts.path.strip("/")
        self._bucket = parts.netloc
        self._base = f"{base}/" if base else ""
        self._options = options

    async def below(self, prefix: str) -> list[Unfinished]:
        """Return uploads that were neither completed nor aborted."""
        return await asyncio.to_thread(self._listed, prefix)

    async def abort(self, found: Unfinished) -> None:
        """Abort the upload: S3 forgets its parts."""
        await asyncio.to_thread(self._abort, found)

    @cached_property
    def _client(self) -> Any:
        # Import it here: it takes half a second, and only the worker and deletions need it.
        import botocore.session  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        endpoint = self._options.get("endpoint")
        return botocore.session.get_session().create_client(
            "s3",
            region_name=self._options["region"],
            endpoint_url=endpoint,
            aws_access_key_id=self._options.get("access_key_id"),
            aws_secret_access_key=self._options.get("secret_access_key"),
            config=Config(
                connect_timeout=5,
                read_timeout=10,
                retries={"max_attempts": 3},
                s3={"addressing_style": "path" if endpoint else "auto"},
            ),
        )

    def _listed(self, prefix: str) -> list[Unfinished]:
        with _translated():
            pages = self._client.get_paginator("list_multipart_uploads")
            return [
                Unfinished(
                    each["Key"].removeprefix(self._base), each["Initiated"], each["UploadId"]
                )
                for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._base}{prefix}")
                for each in page.get("Uploads", ())
            ]

    def _abort(self, found: Unfinished) -> None:
        with _translated(), suppress(self._client.exceptions.NoSuchUpload):
            self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=f"{self._base}{found.key}", UploadId=found.reference
            )


@contextmanager
def _translated() -> Iterator[None]:
    """Turn botocore's errors into one that callers of the object store know."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise OSError(type(error).__name__) from error


class Untold:
    """A store whose unfinished writes nobody can list; the bucket's own rules must end them."""

    async def below(self, _prefix: str) -> list[Unfinished]:
        """Return none."""
        return []

    async def abort(self, _found: Unfinished) -> None:
        """Do nothing: no unfinished write is ever listed."""
