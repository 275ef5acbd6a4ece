"""Answers of the API: read here, or found to come from something else.

Under the API's address a proxy may answer, its login page, another program, or another release. An
answer that is not as promised ends in our error, never in a KeyError of whoever uses it.

A server may be older or newer than this SDK. Fields that this SDK does not know are ignored. A
field that a later release adds to an answer has a default, which stands where an older server does
not send it.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, Generic, TypeVar

import httpx
from httpx_sse import ServerSentEvent

from agent_runner.errors import from_stranger, told
from agent_runner.types import (
    ApiKey,
    Artifact,
    Event,
    Execution,
    Invitation,
    Member,
    NewApiKey,
    Project,
    StoredFile,
    Stream,
)

T = TypeVar("T")
Read = Callable[[Any], T]
NOT_AS_PROMISED = (LookupError, TypeError, ValueError, AttributeError)
"""Exceptions of reading an answer that is not as promised."""
NOTHING = "204 No Content"


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """An answer of the API: what it is, for people, and what makes a value of its JSON."""

    what: str
    read: Read[T]


@dataclass(frozen=True, slots=True)
class EventAnswer(Generic[T]):
    """A stream of events: what it is, for people, and what makes a value of one and its data."""

    what: str
    read: Callable[[ServerSentEvent, dict[str, Any]], T]


def read(answer: Answer[T], response: httpx.Response) -> T:
    """Return the value of an answer. Raises Unavailable if it is not as promised."""
    try:
        body = response.json()
    except ValueError as error:
        raise from_stranger(response, told(media_type(response)), answer.what) from error
    try:
        return answer.read(body)
    except NOT_AS_PROMISED as error:
        raise from_stranger(response, fault(error), answer.what) from error


def read_event(answer: EventAnswer[T], response: httpx.Response, sent: ServerSentEvent) -> T:
    """Return the value of an event of a stream. Raises Unavailable if it is not as promised."""
    try:
        return answer.read(sent, object_of(json.loads(sent.data)))
    except NOT_AS_PROMISED as error:
        raise from_stranger(response, "an event of another form", answer.what) from error


def media_type(response: httpx.Response) -> str:
    """Return the media type of an answer, without its parameters."""
    kind: str = response.headers.get("content-type", "no media type")
    return kind.partition(";")[0].strip().lower()


def fault(error: Exception) -> str:
    """Return what is wrong with an answer of which reading raised this."""
    if isinstance(error, KeyError):
        return f"JSON without {told(str(error.args[0]))}"
    return "JSON of another form"


def having(*names: str, **each: Read[Any]) -> Read[dict[str, Any]]:
    """Return what takes an object that has these fields, some of which are read.

    A field that a later release adds is not named here: an older server does not send it.
    """

    def read_object(body: Any) -> dict[str, Any]:
        found: dict[str, Any] = object_of(body)
        for name in names:
            found[name]
        return {**found, **{name: read_one(found[name]) for name, read_one in each.items()}}

    return read_object


def listed(read_one: Read[T]) -> Read[list[T]]:
    """Return what reads each thing of a list."""

    def read_list(body: Any) -> list[T]:
        if not isinstance(body, list):
            raise TypeError("not a list")
        return [read_one(each) for each in body]

    return read_list


def items(read_one: Read[T]) -> Read[list[T]]:
    """Return what reads each of an object's `items`."""
    return lambda body: listed(read_one)(object_of(body)["items"])


def page(read_one: Read[T]) -> Read[tuple[list[T], str | None]]:
    """Return what reads each of a page's `items`, and the cursor of the next page."""
    return lambda body: (items(read_one)(body), _cursor(body["next_cursor"]))


def made(kind: type[T]) -> Read[T]:
    """Return what makes a dataclass of the fields of the same names.

    Without a default, a field must be there.
    """
    known = fields(kind)  # type: ignore[arg-type]  # a dataclass
    names = {field.name for field in known}
    needed = names - {
        field.name
        for field in known
        if not (field.default is MISSING and field.default_factory is MISSING)
    }

    def read_made(body: Any) -> T:
        found = object_of(body)
        return kind(**{name: found[name] for name in names if name in needed or name in found})

    return read_made


def object_of(body: Any) -> dict[str, Any]:
    """Return an object as it is. Raises TypeError for anything else."""
    if not isinstance(body, dict):
        raise TypeError("not an object")
    return body


def _cursor(value: Any) -> str | None:
    if not (value is None or isinstance(value, str)):
        raise TypeError("not a cursor")
    return value


def _execution(body: Any) -> Execution:
    result = object_of(body)["result"] or {}
    return Execution(
        id=body["id"],
        state=body["state"],
        attempt=body["attempt"],
        created_at=body["created_at"],
        started_at=body["started_at"],
        ended_at=body["ended_at"],
        project=body["project"],
        metadata=object_of(body["metadata"]),
        image=body["image"],
        size=body["size"],
        queue_position=body["queue_position"],
        estimated_start_s=body["estimated_start_s"],
        reason=result.get("reason"),
        detail=result.get("detail"),
        exit_code=result.get("exit_code"),
        signal=result.get("signal"),
        stdout=stream_of(result.get("stdout")),
        stderr=stream_of(result.get("stderr")),
        usage=object_of(result.get("usage") or {}),
        limits_hit=tuple(result.get("limits_hit") or ()),
        artifacts=tuple(map(made(Artifact), result.get("artifacts") or ())),
        artifacts_refused=tuple(result.get("artifacts_refused") or ()),
        egress=result.get("egress"),
    )


def stream_of(body: Any) -> Stream | None:
    """Return what was kept of an output; None if nothing is told of it."""
    if body is None:
        return None
    return Stream(
        raw=decoded(body["content"], body["encoding"]),
        truncated=body["truncated"],
        total_bytes=body["total_bytes"],
        omitted_bytes=body["omitted_bytes"],
        omitted_at=body["omitted_at"],
    )


def decoded(content: str, encoding: str) -> bytes:
    """Return the bytes of output as the API sends it."""
    return base64.b64decode(content) if encoding == "base64" else content.encode()


def _key(body: Any) -> ApiKey:
    return made(ApiKey)(
        {
            **object_of(body),
            **{name: _tuple(body[name]) for name in ("permissions", "networks")},
        }
    )


def _tuple(value: Any) -> tuple[Any, ...] | None:
    return None if value is None else tuple(value)


def _event(sent: ServerSentEvent, data: dict[str, Any]) -> Event:
    return Event(id=int(sent.id), kind=sent.event, data=data, raw=output_of(data))


def output_of(data: dict[str, Any]) -> bytes:
    """Return the output that an event brings, if any."""
    return decoded(data.get("content", ""), data.get("encoding", "utf-8"))


_USED = having(
    "attempts", "wall_s", "cpu_s", "memory_gib_s", "egress_bytes_up", "egress_bytes_down",
    "artifact_bytes",
)  # fmt: skip
_POLICY = having("name", "rules", "updated_at")
_SECRET = having("name", "created_at", "updated_at")
_WEBHOOK = ("url", "created_at", "updated_at", "delivered_seq", "failures", "problem", "retry_at")
_QUOTA = having("name", "limit", "used", "remaining", "frees_at")

EXECUTION = Answer("an execution", _execution)
EVENT = EventAnswer("a stream of an execution's events", _event)
EXECUTIONS = Answer("a page of executions", page(_execution))
ARTIFACTS = Answer("a list of artifacts", items(made(Artifact)))
RECEIPT = Answer("a receipt", having("type", "body", "key", "signature"))
EXPLANATION = Answer(
    "an explanation",
    having("id", "kind", "state", "wait", "end", stages=listed(having("stage", "at", "after_s"))),
)
SIGNING_KEYS = Answer("a list of public keys", items(having("id", "pem")))
AUDIT = Answer(
    "a page of audit records",
    having("next_cursor", items=listed(having("seq", "hash", "record"))),
)
VERIFICATION = Answer(
    "whether the audit log is intact", having("valid", "records", "head", "fault", "checkpoint")
)
WEBHOOK = Answer("where the audit log is forwarded to", having(*_WEBHOOK))
NEW_WEBHOOK = Answer(WEBHOOK.what, having(*_WEBHOOK, "secret"))
POLICY = Answer("an egress policy", _POLICY)
POLICIES = Answer("a list of egress policies", items(_POLICY))
SECRET = Answer("a secret's name", _SECRET)
SECRETS = Answer("a list of secrets' names", items(_SECRET))
USAGE = Answer(
    "a usage report",
    having(
        "tier", "max_size", "weight", "first", "last",
        quotas=listed(_QUOTA), total=_USED, days=listed(having("day", used=_USED)),
    ),
)  # fmt: skip
FILE = Answer("a stored file", made(StoredFile))
FILES = Answer("a page of stored files", page(made(StoredFile)))
KEY = Answer("an API key", _key)
KEYS = Answer("a page of API keys", page(_key))
NEW_KEY = Answer(
    "a new API key", lambda body: NewApiKey(key=_key(body["key"]), token=str(body["token"]))
)
MEMBER = Answer("a member", made(Member))
MEMBERS = Answer("a list of members", items(made(Member)))
INVITATION = Answer(
    "an invitation",
    lambda body: Invitation(member=made(Member)(body["member"]), token=str(body["token"])),
)
PROJECT = Answer("a project", made(Project))
PROJECTS = Answer("a page of projects", page(made(Project)))
ME = Answer("who you are", having("kind", "name", "tenant", "role", "permissions"))
