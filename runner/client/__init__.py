"""The SDK: the HTTP API as Python, and nothing else of the product.

ApiError                 the API refused; carries the problem document
├── NotAuthenticated     401
├── NotPermitted         403
├── NotFound             404
├── Conflict             409, 412
├── Invalid              400, 411, 413, 415, 422
├── TooMany              429
└── Unavailable          502, 503, 504, or no answer at all: safe to try again

    client     one method for each thing the API does
    files      the tenant's stored files
    transport  sends requests, and makes failures ours
    types      what the API answers
    errors     the tree above
"""

from runner.client.client import Client
from runner.client.errors import (
    ApiError,
    Conflict,
    Invalid,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    TooMany,
    Unavailable,
)
from runner.client.types import Artifact, Event, Execution, StoredFile, Stream

__all__ = [
    "ApiError",
    "Artifact",
    "Client",
    "Conflict",
    "Event",
    "Execution",
    "Invalid",
    "NotAuthenticated",
    "NotFound",
    "NotPermitted",
    "StoredFile",
    "Stream",
    "TooMany",
    "Unavailable",
]
