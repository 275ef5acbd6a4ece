# Written by scripts/make-sync from _async/templates.py: change that.
"""Templates: `client.templates`."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from agent_runner._sync.calls import call, delete
from agent_runner._sync.local import sleep
from agent_runner.living import BuildOutput, TemplateInfo, TemplateTag
from agent_runner.living_answers import TEMPLATE, TEMPLATE_LOG, TEMPLATE_TAGS, TEMPLATES
from agent_runner.transport import params

_TEMPLATES = "/v1/templates"
_POLL_S = 0.5


class Templates:
    """The tenant's templates: `image=name` in `sandboxes.create`, `submit` and `run` means one."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def build(
        self, name: str, steps: Sequence[Mapping[str, Any]] = (), **options: Any
    ) -> TemplateInfo:
        """Begin to build a template; `wait` returns it once the build has ended.

        `options` are the other fields of `POST /v1/templates`, such as `base` and `egress`. Raises
        ApiError.
        """
        body = {"name": name, "steps": list(steps), **options}
        return call(self._http, TEMPLATE, "POST", _TEMPLATES, json=body)

    def wait(self, template_id: str) -> TemplateInfo:
        """Return a template once its build has ended: its `state` says how. Raises ApiError."""
        while (found := self.get(template_id)).state == "building":
            sleep(_POLL_S)
        return found

    def get(self, template_id: str) -> TemplateInfo:
        """Return a template as it is now. Raises ApiError."""
        return call(self._http, TEMPLATE, "GET", _path(template_id))

    def list(
        self,
        *,
        name: str | None = None,
        public: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[Sequence[TemplateInfo], str | None]:
        """Return a page of templates, newest first, and the cursor of the next one.

        With `public`, these are the operator's, which are everybody's.
        """
        wanted = params(name=name, limit=limit, cursor=cursor, public="true" if public else None)
        return call(self._http, TEMPLATES, "GET", _TEMPLATES, params=wanted)

    def logs(self, template_id: str, *, after: int = 0) -> Sequence[BuildOutput]:
        """Return what a build wrote after entry number `after`; at most 200 entries at once."""
        path = f"{_path(template_id)}/logs"
        return call(self._http, TEMPLATE_LOG, "GET", path, params=params(after=after))

    def tags(self, template_id: str) -> Sequence[TemplateTag]:
        """Return every tag of a template's name, and what each stands for. Raises ApiError."""
        return call(self._http, TEMPLATE_TAGS, "GET", f"{_path(template_id)}/tags")

    def tag(self, template_id: str, tags: Sequence[str]) -> TemplateInfo:
        """Let tags of its name stand for a template from now on. Raises ApiError."""
        path, body = f"{_path(template_id)}/tags", {"tags": [*tags]}
        return call(self._http, TEMPLATE, "POST", path, json=body)

    def untag(self, template_id: str, tag: str) -> None:
        """Let a tag of a template stand for nothing. Raises ApiError."""
        delete(self._http, f"{_path(template_id)}/tags/{quote(tag, safe='')}")

    def delete(self, template_id: str) -> None:
        """Delete a template; sandboxes that were made from it live on. Raises ApiError."""
        delete(self._http, _path(template_id))


def _path(template_id: str) -> str:
    return f"{_TEMPLATES}/{quote(template_id, safe='')}"
