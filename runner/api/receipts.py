"""Receipts of executions, and the public keys that verify them."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Response
from pydantic import Field

from runner.api.deps import CanRead, CanReadSandboxes, ExecutionId, Parts, SandboxId
from runner.api.problems import responses
from runner.api.views import View
from runner.executions.receipt import receipt
from runner.sandboxes.receipt import receipt as sandbox_receipt

router = APIRouter(prefix="/v1", tags=["receipts"])


class Receipt(View):
    """A signed statement of what ran. `signature` covers the canonical JSON of the rest."""

    type: str = Field(examples=["agent-runner/receipt/v1"])
    body: dict[str, Any] = Field(
        description="Ids; hashes of request, image, profile and policy; the isolation as the "
        "kernel reported it; times, usage, result and artifacts; the head of the audit chain."
    )
    key: str = Field(description="The key that signed it.", examples=["3f1c09b2a7d45e68"])
    signature: str = Field(description="Ed25519, base64.")


class SigningKey(View):
    """A public key of the deployment."""

    id: str = Field(examples=["3f1c09b2a7d45e68"])
    pem: str = Field(description="SubjectPublicKeyInfo, PEM.")


class SigningKeys(View):
    """The public keys that this deployment trusts."""

    items: list[SigningKey]


@router.get(
    "/executions/{execution_id}/receipt",
    summary="Read an execution's receipt",
    response_model=Receipt,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def read(execution_id: ExecutionId, caller: CanRead, parts: Parts) -> Response:
    """Return the receipt byte for byte as it was signed. The audit log records the request.

    `runner receipt verify` checks it offline with a public key alone.
    """
    async with parts.database.tenant(caller.tenant_id) as tx:
        document = await receipt(tx, caller, execution_id)
    return Response(document, media_type="application/json")


@router.get(
    "/sandboxes/{sandbox_id}/receipt",
    summary="Read a sandbox's receipt",
    response_model=Receipt,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def read_of_sandbox(
    sandbox_id: SandboxId, caller: CanReadSandboxes, parts: Parts
) -> Response:
    """Return the receipt of a sandbox that has ended, byte for byte as its node signed it.

    The audit log records the request. `runner receipt verify` checks it offline with a public key
    alone.
    """
    document = await sandbox_receipt(parts.database, caller, sandbox_id)
    return Response(document, media_type="application/json")


@router.get("/signing-keys", summary="List the keys that verify receipts", responses=responses())
async def keys(_: CanRead, parts: Parts) -> SigningKeys:
    """Return the public keys that this deployment trusts, including those before a rotation."""
    found = parts.trusted.read()
    return SigningKeys(items=[SigningKey(id=key.id, pem=key.pem) for key in found])
