"""`GET …/explanation`: why an execution or a sandbox waited, was refused or ended."""

from dataclasses import asdict
from datetime import datetime
from http import HTTPStatus
from typing import Literal, Self
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from runner.api.deps import CanRead, CanReadSandboxes, ExecutionId, Parts, SandboxId
from runner.api.problems import responses
from runner.api.views import View
from runner.executions.explain import explain as explain_execution
from runner.sandboxes.explain import explain as explain_sandbox
from runner.words.explanation import (
    ExplainedEnd,
    Explanation,
    Hindrance,
    Source,
    Stage,
    StageName,
    Wait,
)

router = APIRouter(prefix="/v1")


class StageView(View):
    """A stage that an execution or a sandbox came to."""

    stage: StageName
    at: datetime
    after_s: float | None = Field(
        description="Seconds since the stage before it. Null for the first one, and after stages "
        "that are left out."
    )
    attempt: int | None = Field(description="Of an execution: counted from 1.")
    node: str | None = Field(description="The node that started it.")
    sandbox: str | None = Field(description="The sandbox that an execution ran in.")
    source: Source | None = Field(
        description="Where that sandbox came from: `stock`, started ahead; `fresh`, started for "
        "this execution; or `reused`, after another execution of the tenant."
    )
    detail: str | None

    @classmethod
    def of(cls, stage: Stage) -> Self:
        """Return the view of a stage."""
        told = asdict(stage)
        return cls(stage=told.pop("name"), **told)


class WaitView(View):
    """The present wait, and its reason."""

    why: Hindrance = Field(description="In one word for programs.")
    detail: str = Field(description="In a sentence for people.")
    since: datetime
    position: int | None = Field(description="How many executions run before it.")
    starts_in_s: float | None = Field(description="An estimate, as `estimated_start_s`.")
    active: int | None = Field(description="How many executions of the tenant run now.")
    concurrent: int | None = Field(description="How many of them may run at once.")

    @classmethod
    def of(cls, wait: Wait) -> Self:
        """Return the view of a wait."""
        return cls(**asdict(wait))


class EndView(View):
    """The end, and its reason."""

    reason: str = Field(description="In one word for programs.", examples=["wall_clock_limit"])
    detail: str | None = Field(description="In a sentence about this end.")
    means: str = Field(description="What the reason means.")
    advice: str = Field(description="What to do.")

    @classmethod
    def of(cls, end: ExplainedEnd) -> Self:
        """Return the view of an end."""
        return cls(
            reason=end.reason,
            detail=end.detail,
            means=end.meaning.means,
            advice=end.meaning.advice,
        )


class ExplanationView(View):
    """The history of an execution or a sandbox, in order, with reasons."""

    id: UUID
    kind: Literal["execution", "sandbox"]
    state: str
    stages: list[StageView] = Field(description="In order.")
    omitted: int = Field(
        description="How many stages after the first one are left out: the last 200 are there."
    )
    wait: WaitView | None = Field(description="While it waits.")
    end: EndView | None = Field(description="Once it has ended.")

    @classmethod
    def of(cls, found: Explanation) -> Self:
        """Return the view of an explanation."""
        return cls(
            id=found.id,
            kind=found.kind,
            state=found.state,
            stages=[StageView.of(each) for each in found.stages],
            omitted=found.omitted,
            wait=None if found.wait is None else WaitView.of(found.wait),
            end=None if found.end is None else EndView.of(found.end),
        )


@router.get(
    "/executions/{execution_id}/explanation",
    summary="Explain an execution",
    tags=["executions"],
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def execution(execution_id: ExecutionId, caller: CanRead, parts: Parts) -> ExplanationView:
    """Say why an execution waits, how long each stage took, and what its end means."""
    found = await explain_execution(parts.database, caller, execution_id)
    return ExplanationView.of(found)


@router.get(
    "/sandboxes/{sandbox_id}/explanation",
    summary="Explain a sandbox",
    tags=["sandboxes"],
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def sandbox(sandbox_id: SandboxId, caller: CanReadSandboxes, parts: Parts) -> ExplanationView:
    """Say what has happened to a sandbox, how long it took, and what its end means."""
    return ExplanationView.of(await explain_sandbox(parts.database, caller, sandbox_id))
