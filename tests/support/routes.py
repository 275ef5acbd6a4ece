"""The routes of the running API, from its own document, so that tests cover new routes, too."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx

METHODS = {"get", "head", "post", "put", "patch", "delete"}
JSON = "application/json"
UNKNOWN_ID = "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"


BY_ADDRESS = {
    "GET /v1/sandboxes/{sandbox_id}/files/signed/content",
    "PUT /v1/sandboxes/{sandbox_id}/files/signed/content",
}
"""Routes that a signed address opens, and nothing else: a key is as good as none there."""


@dataclass(frozen=True)
class Operation:
    """One method of one path, with an example of its body."""

    method: str
    path: str
    described: Mapping[str, Any]
    body: Any

    @property
    def route(self) -> str:
        """The route's name in tables."""
        return f"{self.method} {self.path}"

    @cached_property
    def in_path(self) -> tuple[str, ...]:
        """The names of the path's parameters."""
        return tuple(re.findall(r"\{(\w+)\}", self.path))

    @cached_property
    def in_query(self) -> tuple[str, ...]:
        """The names of the query's parameters that take text."""
        return tuple(
            each["name"]
            for each in self.described.get("parameters", ())
            if each["in"] == "query" and "string" in str(each["schema"])
        )

    @cached_property
    def needed(self) -> Mapping[str, str]:
        """An example of each query parameter that must be there."""
        return {
            each["name"]: str((each.get("examples") or each["schema"].get("examples"))[0])
            for each in self.described.get("parameters", ())
            if each["in"] == "query" and each["required"]
        }

    def send(
        self,
        client: httpx.Client,
        values: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send it with these values for the path's parameters."""
        url = self.path
        for name in self.in_path:
            nobodys = UNKNOWN_ID if name.endswith("_id") else "unknown"
            url = url.replace(f"{{{name}}}", (values or {}).get(name, nobodys))
        asked = {**self.needed, **(query or {})} or None
        if isinstance(self.body, bytes):
            return client.request(self.method, url, params=asked, content=self.body)
        return client.request(self.method, url, params=asked, json=self.body)


def operations(document: Mapping[str, Any]) -> list[Operation]:
    """Return every operation of an OpenAPI document."""
    return [
        Operation(method.upper(), path, described, _example(document, described))
        for path, item in document["paths"].items()
        for method, described in item.items()
        if method in METHODS
    ]


def fetch(url: str) -> list[Operation]:
    """Return every operation of the API at this address."""
    return operations(httpx.get(f"{url}/openapi.json", timeout=60).json())


def _example(document: Mapping[str, Any], described: Mapping[str, Any]) -> Any:
    content = described.get("requestBody", {}).get("content", {})
    if not content:
        return None
    if JSON not in content:
        return b"content"
    name = content[JSON]["schema"].get("$ref", "").rpartition("/")[2]
    schema = document["components"]["schemas"].get(name, {})
    return (schema.get("examples") or [{}])[0]
