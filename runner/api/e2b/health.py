"""The health of a sandbox, as E2B's clients ask for it inside."""

from http import HTTPStatus

from fastapi import APIRouter

from runner.api.e2b.inside import InSandbox

router = APIRouter()


@router.get("/health", status_code=HTTPStatus.NO_CONTENT)
async def health(_: InSandbox) -> None:
    """Answer that the sandbox takes commands; otherwise it was answered 502 before."""
