"""Builds templates over HTTP, and reads what the builds wrote; rows of templates."""

from datetime import UTC, datetime
from typing import Any

import httpx

from runner.store.templates import StoredTemplate, TemplateState
from runner.words.ids import new_id
from tests.support.deployment import eventually

BUILT_S = 120.0


def build(http: httpx.Client, name: str, *steps: Any, **more: Any) -> dict[str, Any]:
    """Build a template, and return it once its build has ended."""
    answer = http.post("/v1/templates", json={"name": name, "steps": list(steps), **more})
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "building"

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = http.get(answer.headers["Location"]).json()
        return found if found["state"] != "building" else None

    template: dict[str, Any] = eventually(ended, within_s=BUILT_S)
    return template


def log(http: httpx.Client, template: dict[str, Any]) -> str:
    """Return what a build has written, read in small pages."""
    text, after = "", 0
    while items := http.get(
        f"/v1/templates/{template['id']}/logs", params={"after": after, "limit": 2}
    ).json()["items"]:
        text += "".join(each["text"] for each in items)
        after = items[-1]["seq"]
    return text


def stored_template(**facts: Any) -> StoredTemplate:
    """Return a template of the name `tools` that is ready, with some facts of it changed."""
    plain: dict[str, Any] = {
        "id": new_id(),
        "name": "tools",
        "tag": "default",
        "created_by": "key:one",
        "base_image": "python",
        "base_template": None,
        "env": {},
        "steps": (),
        "state": TemplateState.READY,
        "detail": None,
        "created_at": datetime.now(UTC),
        "ended_at": datetime.now(UTC),
        "archive_bytes": 1,
        "sha256": "0" * 64,
        "owner": new_id(),
        "public": False,
        "tags": ("default",),
    }
    return StoredTemplate(**{**plain, **facts})
