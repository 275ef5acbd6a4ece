"""Receipts of executions, and the public keys that verify them."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Response
from pydantic import Field

from runner.api.deps import CanRead, ExecutionId, Parts
from runner.api.problems import responses
from runner.api.views import View
from runner.executions.receipt import receipt

router = APIRouter(prefix="/v1", tags=["receipts"])


class Receipt(View):
    """A signed statement of what ran; `signature` covers the canonical JSON of the rest."""

    type: str = Field(examples=["agent-runner/receipt/v1"])
    body: dict[str, Any] = Field(
        description="Ids, hashes of request, image, profile and policy, the isolation as read back "
        "from the running container, times, usage, result, artifacts, the audit chain's head."
    )
    key: str = Field(description="Which key signed it.", examples=["3f1c09b2a7d45e68"])
    signature: str = Field(description="Ed25519, base64.")


class SigningKey(View):
    """A public key of the deployment."""

    id: str = Field(examples=["3f1c09b2a7d45e68"])
    pem: str = Field(description="SubjectPublicKeyInfo, PEM.")


class SigningKeys(View):
    """Every key that this deployment has signed with."""

    items: list[SigningKey]


@router.get(
    "/executions/{execution_id}/receipt",
    summary="Read an execution's receipt",
    response_model=Receipt,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def read(execution_id: ExecutionId, caller: CanRead, parts: Parts) -> Response:
    """Return the receipt as it was signed, byte for byte. That it was handed out is on record.

    `runner receipt verify` checks it offline with a public key alone.
    """
    async with parts.database.tenant(caller.tenant_id) as tx:
        document = await receipt(tx, caller, execution_id)
    return Response(document, media_type="application/json")


@router.get("/signing-keys", summary="List the keys that verify receipts", responses=responses())
async def keys(_: CanRead, parts: Parts) -> SigningKeys:
    """Return the public keys that this deployment trusts, also those of before a rotation."""
    found = parts.trusted.read()
    return SigningKeys(items=[SigningKey(id=key.id, pem=key.pem) for key in found])
