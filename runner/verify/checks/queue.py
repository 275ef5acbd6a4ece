"""Jobs that somebody with write access to Redis forges, and what RQ itself would do with them.

Without the control, the same bytes go to RQ's own job class, whose function leaves a mark.
"""

import asyncio
import json
import pickle
import secrets
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import redis
from rq.job import Job
from rq.serializers import DefaultSerializer, JSONSerializer

from runner.embedded.process import service_user
from runner.embedded.redis import Redis
from runner.queue.job import RefusedJob, Then, bound_job_class
from runner.queue.ring import MAX_PAYLOAD_BYTES
from runner.verify.bench import Bench
from runner.verify.check import Check, Group, Observation, Severity
from runner.verify.trial import Attempt, Trial

_NOW = "2026-01-01T00:00:00.000000Z"


@contextmanager
def _redis(patience: int) -> Iterator["redis.Redis"]:
    """Yield a private Redis."""
    with tempfile.TemporaryDirectory(prefix="runner-verify-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        user = service_user()
        sockets = folder / "redis"
        user.own(sockets)
        server = Redis(sockets=sockets, user=user, logs=folder, patience=patience)
        server.start()
        try:
            with redis.Redis.from_url(server.url) as connection:
                yield connection
        finally:
            server.stop()


def _call(function: str, *arguments: object) -> list[Any]:
    return [function, None, list(arguments), {}]


def _forged(fields: Mapping[str, object], serializer: str = "json") -> Attempt:
    """Return an attempt to have a worker run the function that a job with these fields names."""

    async def attempt(bench: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        return await asyncio.to_thread(_try, fields, serializer, guarded, bench.settings.patience)

    return attempt


def _try(
    fields: Mapping[str, object],
    serializer: str,
    guarded: bool,  # noqa: FBT001 - as above
    patience: int,
) -> Observation:
    with _redis(patience) as connection, tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "mark"
        id_ = f"forged-{secrets.token_hex(4)}"
        job: dict[Any, Any] = {"created_at": _NOW, "origin": "executions", "status": "queued"}
        job.update({name: _with_mark(value, mark) for name, value in fields.items()})
        connection.hset(f"rq:job:{id_}", mapping=job)
        ours = bound_job_class(lambda _: None, lambda *_: Then.GO_ON)
        kind = ours if guarded else Job
        chosen = JSONSerializer if serializer == "json" else DefaultSerializer
        try:
            loaded = kind.fetch(id_, connection=connection, serializer=chosen)
            loaded.perform()
        except RefusedJob as error:
            return Observation(breached=mark.exists(), saw=str(error).partition("refused: ")[2])
        if mark.exists():
            return Observation(breached=True, saw="it ran")
        if loaded.success_callback is not None:
            return Observation(breached=True, saw="its callback was loaded")
        return Observation(breached=len(loaded.data) > MAX_PAYLOAD_BYTES, saw="taken whole")


def _with_mark(value: object, mark: Path) -> Any:
    """Return the field as Redis holds it, with the mark's path where the field wants it."""
    if isinstance(value, bytes | str):
        return value
    kind, (function, instance, given, named) = cast("tuple[str, list[Any]]", value)
    call = [function, instance, [str(mark) if each == "MARK" else each for each in given], named]
    raw = json.dumps(call).encode() if kind != "pickle" else pickle.dumps(tuple(call))
    return zlib.compress(raw) if kind == "zlib" else raw


_FORGED: tuple[Check, ...] = tuple(
    Trial(
        id=f"queue.{id_}",
        group=Group.QUEUE,
        severity=Severity.CRITICAL,
        title=title,
        meaning=meaning,
        source=source,
        control="the worker's own job class",
        attempt=_forged(fields, "pickle" if id_ == "pickle" else "json"),
    )
    for id_, title, fields, meaning, source in (
        ("function", "A job that names another function is refused",
         {"data": ("json", _call("os.mkdir", "MARK"))},
         "whoever can write to Redis could run code on a worker", "RQ documentation, security"),
        ("function-compressed", "A compressed job that names another function is refused",
         {"data": ("zlib", _call("os.mkdir", "MARK"))},
         "whoever can write to Redis could run code on a worker", "RQ documentation, security"),
        ("pickle", "A pickled job is refused",
         {"data": ("pickle", _call("os.mkdir", "MARK"))},
         "unpickling is code execution", "CWE-502"),
        ("library-function", "A function from one of the product's dependencies is refused",
         {"data": ("json", _call("pathlib.Path.touch", "MARK"))},
         "any installed function could be called", "RQ documentation, security"),
        ("callback", "A job with a callback is refused",
         {"data": ("json", _call("os.getcwd")), "success_callback_name": "os.getcwd"},
         "a callback could run code on a worker", "RQ 1.6 callbacks"),
        ("bomb", "A decompression bomb is refused",
         {"data": zlib.compress(b'["os.getcwd", null, [], {}]' + b" " * 2**22)},
         "the worker's memory could be filled", "CWE-409"),
        ("oversized", "An oversized job is refused inside Redis",
         {"data": ("json", _call("os.getcwd")), "description": "x" * 100_000,
          "success_callback_name": "os.getcwd"},
         "the worker's memory could be filled", "CWE-770"),
        ("padded", "A padded payload is refused",
         {"data": json.dumps(_call("os.getcwd")).encode() + b" " * 600},
         "a job could hold more than its checked content", "CWE-770"),
    )
)  # fmt: skip

CHECKS: tuple[Check, ...] = _FORGED
