"""A tool, and the context of its call."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar
from uuid import UUID

from fastapi import Request

from runner.api.counting import count
from runner.api.deps import Dependencies, require
from runner.api.edge.groups import Group
from runner.api.fields import Strict
from runner.api.mcp.results import Excerpt, ToolResult
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.executions.read import NO_EXECUTION
from runner.sandboxes.place import NO_SANDBOX
from runner.words.errors import NotFound

Arguments = TypeVar("Arguments", bound=Strict)


@dataclass(slots=True)
class Progress:
    """The progress of a call that takes long."""

    total_s: float | None = None
    """How many seconds it may take."""
    output: Excerpt | None = None
    """The output that it has written so far."""

    @property
    def message(self) -> str | None:
        """The last line of its output, if there is one."""
        return (self.output.last_line if self.output else None) or None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call: who calls, the parts of the process, and what is told meanwhile."""

    request: Request
    parts: Dependencies
    caller: Caller
    progress: Progress = field(default_factory=Progress)

    async def require(self, permission: Permission) -> None:
        """Raise NotPermitted, and put that on record, if the caller lacks the permission."""
        await require(self.request, self.parts, self.caller, permission)

    async def count(self, group: Group) -> None:
        """Count the call as a request of this group. Raises TooManyAttempts and QueueUnavailable.

        The request itself has been counted as the use of a sandbox, at a higher rate.
        """
        await count(self.parts, self.caller, group)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool(Generic[Arguments]):
    """A tool: what a model is told of it, who may call it, and what it does."""

    name: str
    title: str
    description: str
    arguments: type[Arguments]
    permission: Permission
    run: Callable[[ToolCall, Arguments], Awaitable[ToolResult]]
    group: Group = Group.USE
    """As which kind of request a call is counted."""
    reads: bool = False
    """Whether it changes nothing."""
    destroys: bool = False
    """Whether it may destroy something that cannot be had back."""

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of its arguments, without the titles that repeat their names."""
        return _schema(self.arguments)

    async def __call__(self, call: ToolCall, given: object) -> ToolResult:
        """Check the caller, its rate and the arguments, and do it.

        Raises ValidationError, and RunnerError.
        """
        await call.require(self.permission)
        arguments = self.arguments.model_validate(given)
        if self.group not in {Group.USE, Group.STOP}:
            await call.count(self.group)
        return await self.run(call, arguments)


def sandbox_id(text: str) -> UUID:
    """Return the id. Raises NotFound, also for what is no id."""
    return _id(text, NO_SANDBOX)


def execution_id(text: str) -> UUID:
    """Return the id. Raises NotFound, also for what is no id."""
    return _id(text, NO_EXECUTION)


def _id(text: str, unknown: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(unknown) from None


@cache
def _schema(arguments: type[Strict]) -> dict[str, Any]:
    """Return the schema. Making one takes a millisecond, and a list of tools has all of them."""
    return _untitled(arguments.model_json_schema())


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in schema.items() if name not in {"title", "description"}}
    kept["properties"] = {
        name: {key: value for key, value in each.items() if key != "title"}
        for name, each in schema.get("properties", {}).items()
    }
    return kept
