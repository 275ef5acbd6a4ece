"""Templates of a tenant: built, read, listed and deleted."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType, TracebackType
from typing import Self
from uuid import UUID

import structlog

from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.base.tasks import uninterrupted
from runner.sandboxes.catalogue import named_template
from runner.sandboxes.living import LivingSandboxes
from runner.sandboxes.order import resolve_sandbox
from runner.store import templates
from runner.store.templates import (
    LogEntry,
    StoredTemplate,
    TemplateFacts,
    TemplateState,
)
from runner.store.transaction import Transaction
from runner.templates.below import below_by, require_limits
from runner.templates.building import Building, BuildTerms, build_order
from runner.templates.counting import KIND, alone
from runner.templates.log import BuildLog
from runner.templates.steps import (
    Work,
    hashes,
    kept_env,
    kept_user,
    kept_workdir,
    last_user,
    works,
)
from runner.words.errors import Conflict, Invalid, NotFound, RunnerError
from runner.words.ids import new_id
from runner.words.sandbox import Isolation
from runner.words.templates import DEFAULT_TAG, ROOT, Startup, Step, looks_like_an_id

NO_TEMPLATE = "no such template"
AT_ONCE = 8
"""How many templates one tenant may build at once. Its quota of sandboxes holds, too."""
FAILED_KEPT = 20
"""How many failed builds of a tenant are kept, with their logs: no quota counts them."""
WAITING = 16
"""How many of its templates may wait for their steps; a further one replaces the oldest. A client
whose steps were refused leaves one behind, and may try again with another."""
_WAITS = timedelta(hours=1)
"""How long one waits for its steps: files may be brought first."""
_GRACE_S = 60.0
"""How long the end of a build may take to be stored."""
_log = structlog.get_logger("runner.api")


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateOrder:
    """A template to build."""

    name: str
    tag: str = DEFAULT_TAG
    base: str | None = None
    """An image, or a template by `name`, `name:tag` or `name@id`; None for the default image."""
    steps: tuple[Step, ...] = ()
    startup: Startup | None = None
    """The start command of each of its sandboxes; None for that of its base."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Resources of its sandboxes that differ from those of its base, or the default size's."""
    anew: bool = False
    """Whether all steps are done, even if a template was made by the same ones."""
    terms: BuildTerms = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Begun:
    template: StoredTemplate
    image: str
    """The specification that its sandbox is made from."""
    works: Sequence[Work]
    root: bool
    """Whether its last step that names a user names root."""


class Templates:
    """Use cases on templates. It is a context: builds that still run end with it."""

    def __init__(self, living: LivingSandboxes, building: Building) -> None:
        self._database = living.database
        self._catalogue = living.catalogue
        self._building = building
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Begin without any."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def build(self, caller: Caller, order: TemplateOrder) -> StoredTemplate:
        """Begin a build, and return the template, which is ready when its state says so.

        Raises Invalid naming the field, and Conflict if this deployment builds none, or the tenant
        builds as many as it may.
        """
        self._may_build(order.name)
        return await self._started(caller, order, None)

    async def announce(
        self,
        caller: Caller,
        name: str,
        tag: str,
        more_tags: Sequence[str] = (),
        limits: Mapping[str, float] = MappingProxyType({}),
    ) -> StoredTemplate:
        """Return a template that waits for its steps. Raises what `build` raises.

        Its sandboxes get these limits instead of the default size's.
        """
        self._may_build(name)
        new = TemplateFacts(
            id=new_id(),
            name=name,
            tag=tag,
            more_tags=tuple(more_tags),
            created_by=caller.actor,
            base_image="",
            base_template=None,
            env={},
            steps=(),
            limits=limits,
        )
        async with alone(self._database, caller) as (tx, tenant, standing):
            require_limits(limits, await self._catalogue.offer(tx, tenant, standing, None))
            await templates.forget_failed(tx, keep=FAILED_KEPT)
            await templates.forget_waiting(tx, keep=WAITING - 1)
            return await templates.insert(tx, new, within=_WAITS, state=TemplateState.WAITING)

    async def begin(
        self, caller: Caller, template_id: UUID, order: TemplateOrder
    ) -> StoredTemplate:
        """Begin the build of a template that waits; its name and tag stay.

        Raises NotFound, what `build` raises, and Conflict if it does not wait any more.
        """
        await self._own(caller, template_id)
        return await self._started(caller, order, template_id)

    def _may_build(self, name: str) -> None:
        if Isolation.GVISOR not in self._catalogue.isolations:
            raise Conflict(
                "this deployment builds no templates: a build is done by root, which only gVisor "
                "keeps off the host. The operator adds gvisor to RUNNER_ISOLATION, or makes an "
                "image with `runner images build`"
            )
        if name in self._catalogue.images:
            raise Invalid(f"{name!r} is an image of this deployment", "name")
        if looks_like_an_id(name):
            raise Invalid(f"{name!r} has the form of an id: choose another name", "name")

    async def _started(
        self, caller: Caller, order: TemplateOrder, waiting: UUID | None
    ) -> StoredTemplate:
        async with alone(self._database, caller, counts=waiting is None) as (tx, tenant, standing):
            if await templates.building(tx) >= AT_ONCE:
                raise Conflict(
                    f"this tenant builds {AT_ONCE} templates already; wait until one has ended"
                )
            await templates.forget_failed(tx, keep=FAILED_KEPT)
            begun = await self._begin(tx, caller, order, waiting)
            offer = await self._catalogue.offer(
                tx, tenant, standing, order.terms.egress_policy, begun.image
            )
            # What the build could not have is refused now, and not when it is under way.
            resolve_sandbox(build_order(begun.template.name, begun.image, order.terms), offer)
            require_limits(begun.template.limits, offer)
            named = begun.template
            facts = {"name": named.name, "tag": named.tag, "base": begun.image}
            caller.record(tx, Action.TEMPLATE_BUILD, KIND, str(named.id), facts)
        task = asyncio.create_task(self._run(caller, begun, order.terms))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return begun.template

    async def _begin(
        self, tx: Transaction, caller: Caller, order: TemplateOrder, waiting: UUID | None
    ) -> _Begun:
        """Store the template; find the one that was made by most of the same steps."""
        below = await below_by(tx, self._catalogue, order.base)
        upon, base_image, earlier, env = below.template, below.image, below.steps, below.env
        mine = hashes(below.hash, order.steps)
        done = 0
        if not order.anew:
            alike = await below.with_first_of(tx, mine)
            if alike is not None:
                upon, done = alike, len(alike.steps) - len(earlier)
        # Before all that they set is kept: it bounds each working directory.
        todo = tuple(works(order.steps, env, below.workdir, skip=done))
        new = TemplateFacts(
            id=waiting or new_id(),
            name=order.name,
            tag=order.tag,
            created_by=caller.actor,
            base_image=base_image,
            base_template=upon.id if upon else None,
            base_owner=upon.owner if upon else None,
            env=kept_env(order.steps, env),
            steps=(*earlier, *mine),
            startup=order.startup or below.startup,
            limits={**below.limits, **order.limits},
            workdir=kept_workdir(order.steps, below.workdir),
            user=kept_user(order.steps, below.user),
        )
        within = timedelta(seconds=order.terms.within_s + _GRACE_S)
        put = templates.insert if waiting is None else templates.start
        stored = await put(tx, new, within=within)
        if stored is None:
            raise Conflict("this template has its steps already; build another one")
        image = upon.image if upon else base_image
        return _Begun(stored, image, todo, last_user(order.steps) == ROOT)

    async def _run(self, caller: Caller, begun: _Begun, terms: BuildTerms) -> None:
        template = begun.template
        log = BuildLog(self._database, caller.tenant_id, template.id)
        if begun.template.base_template is not None:
            log.say(f"on {begun.image}: what it was made by is not done again\n")
        ended = asyncio.Event()
        storing = asyncio.create_task(log.store_until(ended))
        failure = "the process that built it was stopped: build it again"
        try:
            async with asyncio.timeout(terms.within_s):
                await self._building.build(
                    caller, template, begun.image, begun.works, terms, log, root=begun.root
                )
            failure = ""
        except TimeoutError:
            failure = f"the build took longer than {terms.within_s:g} s"
        except RunnerError as error:
            failure = error.detail
        except Exception as error:  # noqa: BLE001 - whoever reads the template learns of it
            failure = "the build failed by a fault of this deployment; its log says which"
            _log.error("template_not_built", template=str(template.id), exc_info=error)
        finally:
            log.say(f"failed: {failure}\n" if failure else "ready\n")
            ended.set()
            await uninterrupted(self._end(caller, template, storing, failure))

    async def _end(
        self, caller: Caller, template: StoredTemplate, storing: asyncio.Task[None], failure: str
    ) -> None:
        await storing
        async with self._database.tenant(caller.tenant_id) as tx:
            if failure:
                ended = await templates.failed(tx, template.id, failure)
            else:
                ended = await templates.ready(tx, template.id)
            if ended:
                outcome = Outcome.FAILURE if failure else Outcome.SUCCESS
                facts = {"name": template.name, "tag": template.tag}
                caller.record(
                    tx, Action.TEMPLATE_END, KIND, str(template.id), facts, outcome=outcome
                )

    async def read(self, caller: Caller, template_id: UUID) -> StoredTemplate:
        """Return a template of the tenant's, or of the operator's. Raises NotFound."""
        async with self._database.tenant(caller.tenant_id) as tx:
            found = await templates.get(tx, template_id)
        if found is None:
            raise NotFound(NO_TEMPLATE)
        return found

    async def _own(self, caller: Caller, template_id: UUID) -> StoredTemplate:
        """Return a template that the tenant may change. Raises NotFound."""
        found = await self.read(caller, template_id)
        require_own(caller, found)
        return found

    async def find(self, caller: Caller, name: str) -> StoredTemplate | None:
        """Return the template of this name, `name:tag`, `name@id` or id, if it was built."""
        async with self._database.tenant(caller.tenant_id) as tx:
            with suppress(ValueError):
                found = await templates.get(tx, UUID(name.removesuffix(f":{DEFAULT_TAG}")))
                return found if found and found.sha256 else None
            return await named_template(tx, name)

    async def list_newest(
        self,
        caller: Caller,
        *,
        before: UUID | None,
        limit: int,
        name: str | None = None,
        public: bool = False,
    ) -> list[StoredTemplate]:
        """Return the tenant's templates, or the operator's, newest first.

        `before` is the last id of the previous page.
        """
        async with self._database.tenant(caller.tenant_id) as tx:
            return await templates.list_newest(
                tx, before=before, limit=limit, name=name, public=public
            )

    async def log(
        self, caller: Caller, template_id: UUID, *, after: int, limit: int
    ) -> list[LogEntry]:
        """Return what a build wrote after entry number `after`. Raises NotFound."""
        await self._own(caller, template_id)
        async with self._database.tenant(caller.tenant_id) as tx:
            return await templates.said(tx, template_id, after=after, limit=limit)

    async def delete(self, caller: Caller, template_id: UUID) -> None:
        """Forget a template; sandboxes that were made from it live on.

        Raises NotFound, and Conflict if it is being built, another one is built on it, or the
        operator has made it everybody's.
        """
        found = await self._own(caller, template_id)
        if found.public:
            raise Conflict(
                f"the operator has made the template {found.image} everybody's: the operator takes "
                "it back first"
            )
        async with self._database.tenant(caller.tenant_id) as tx:
            if await templates.delete(tx, template_id) is None:
                raise Conflict(
                    f"the template {found.image} is being built, or another template is built on "
                    "it: delete that one first"
                )
            caller.record(tx, Action.TEMPLATE_DELETE, KIND, str(template_id), {"name": found.name})


def require_own(caller: Caller, found: StoredTemplate) -> None:
    """Raise NotFound for a template that only the operator changes."""
    if found.owner != caller.tenant_id:
        raise NotFound(f"{NO_TEMPLATE} of yours: the operator's are changed by the operator")
