"""Builds templates over HTTP, and reads what the builds wrote."""

from typing import Any

import httpx

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
