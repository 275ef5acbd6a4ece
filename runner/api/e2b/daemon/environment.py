"""`/envs`: the variables that a sandbox gives to its processes."""

from fastapi import APIRouter

from runner.api.deps import Parts
from runner.api.e2b.inside import InSandbox

router = APIRouter(tags=["e2b"])


@router.get("/envs", summary="Read a sandbox's environment (E2B)")
async def envs(inside: InSandbox, parts: Parts) -> dict[str, str]:
    """Return what every process of the sandbox is given, without the values of secrets."""
    found = await parts.sandboxes.read(inside.caller, inside.sandbox_id)
    return dict(found.env)
