"""One build: a sandbox in which root builds, its steps in order, and what they have changed."""

import json
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from uuid import UUID

from runner.auth.caller import Caller
from runner.base.tasks import uninterrupted
from runner.quotas.standing import template_refusal
from runner.sandboxes.living import LivingSandboxes
from runner.sandboxes.measured import Measured
from runner.sandboxes.order import LivingOrder
from runner.sandboxes.use import Using
from runner.secrets.envelope import new_key, template_of
from runner.secrets.streams import sealed, sealed_size
from runner.secrets.vault import Vault
from runner.store import ledger, objects, quotas, templates
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.store.templates import StoredTemplate, TemplateContent
from runner.templates.log import BuildLog
from runner.templates.steps import Work
from runner.tenants.policies import Entry
from runner.words.errors import Conflict, FileRefused, NotFound, NotReady
from runner.words.execution import JSON, Stream
from runner.words.ids import new_id
from runner.words.living import Launch, OutputGap, OutputPiece, StoredSandbox
from runner.words.sandbox import WORKSPACE, Isolation
from runner.words.text import counted

BUILD = "/mnt"
UPPER = f"{BUILD}/upper"
"""The folder of the steps' changes: as in `inside`, which is not imported but sent."""
INSIDE = f"{BUILD}/inside.py"
_CONTENT = f"{BUILD}/content"
_PYTHON = ("/usr/bin/python3", "-I", INSIDE)
_MIB = 2**20
_HEADERS = 64 * _MIB
"""The bytes of an archive beyond its files: a header for each small one."""


@dataclass(frozen=True, slots=True)
class BuildTerms:
    """The resources that a build may use, and the hosts that it may reach."""

    size: str
    limits: Mapping[str, float]
    egress: tuple[Entry, ...]
    egress_policy: str | None
    secret_env: Mapping[str, str]
    """Variables of its steps by the secrets that they hold. They are no variables afterwards."""
    within_s: float


def build_order(name: str, image: str, terms: BuildTerms) -> LivingOrder:
    """Return the sandbox in which a template of this name is built on this image."""
    return LivingOrder(
        size=terms.size,
        limits=terms.limits,
        image=image,
        isolation=Isolation.GVISOR,
        egress=terms.egress,
        egress_policy=terms.egress_policy,
        secret_env=terms.secret_env,
        metadata={"template": name},
        timeout_s=terms.within_s,
        max_life_s=terms.within_s,
        builds=True,
    )


def inside_program() -> bytes:
    """Return the program that root runs in a build's sandbox."""
    return resources.files(__package__).joinpath("inside.py").read_bytes()


@dataclass(frozen=True, slots=True)
class Building:
    """Builds templates."""

    database: Database
    living: LivingSandboxes
    using: Using
    objects: ObjectStore
    vault: Vault

    async def build(
        self,
        caller: Caller,
        template: StoredTemplate,
        image: str,
        works: Sequence[Work],
        terms: BuildTerms,
        log: BuildLog,
        *,
        root: bool,
    ) -> None:
        """Do the work in a sandbox of this image, keep what it changed, and try it.

        If the steps end as `root`, the log says that its sandboxes have another user.

        Raises Conflict if a step fails, and what else keeps a sandbox from living or being kept.
        """
        async with self._sandbox(caller, template, image, terms) as sandbox:
            await self._do(caller, sandbox.id, Work("prepare", {"do": "prepare"}), log)
            for work in works:
                log.say(f"{work.title}\n")
                await self._do(caller, sandbox.id, work, log)
            home = (await self.using.stat_file(caller, sandbox.id, WORKSPACE)).target or WORKSPACE
            gathers = {"do": "gather", "home": home, "user": template.user, "root": root}
            gather = Work("gather", gathers)
            await self._do(caller, sandbox.id, gather, log)
            await self._keep(caller, sandbox, template)
        log.say("trying the template\n")
        tried = await self._made(caller, LivingOrder(image=template.image))
        try:
            await self._begins(caller, tried.id, template)
        finally:
            await uninterrupted(self.living.kill(caller, tried.id))

    async def _begins(self, caller: Caller, sandbox_id: UUID, template: StoredTemplate) -> None:
        """Raise Conflict if no process of a sandbox can start where, and as whom, it should."""
        if template.workdir is None and template.user is None:
            return
        try:
            async with self.using.start(caller, sandbox_id, Launch(("/bin/true",))):
                pass
        except FileRefused as error:
            raise Conflict(
                "processes of its sandboxes cannot start in its working directory "
                f"{template.workdir or 'at home'}: {error.detail}"
            ) from None

    @asynccontextmanager
    async def _sandbox(
        self, caller: Caller, template: StoredTemplate, image: str, terms: BuildTerms
    ) -> AsyncIterator[StoredSandbox]:
        made = await self._made(caller, build_order(template.name, image, terms))
        try:
            await self.using.write_file(caller, made.id, INSIDE, _once(inside_program()))
            yield made
        finally:
            await uninterrupted(self.living.kill(caller, made.id))

    async def _made(self, caller: Caller, order: LivingOrder) -> StoredSandbox:
        id_ = new_id()
        try:
            return await self.living.create(caller, order, id_=id_)
        except NotReady as error:
            with suppress(NotFound):
                record = await self.living.read(caller, id_)
                raise Conflict(f"no sandbox could be made: {record.detail}") from error
            raise

    async def _do(self, caller: Caller, sandbox_id: UUID, work: Work, log: BuildLog) -> None:
        command: dict[str, JSON] = dict(work.command)
        if work.content is not None or work.object_key is not None:
            stored = self.objects.read(work.object_key) if work.object_key else None
            chunks = stored or _once(work.content or b"")
            await self.using.write_file(caller, sandbox_id, _CONTENT, chunks)
            command["content"] = _CONTENT
        launch = Launch((*_PYTHON, json.dumps(command)), cwd="/")
        decoders = {each: getincrementaldecoder("utf-8")("replace") for each in Stream}
        async with self.using.start(caller, sandbox_id, launch) as process:
            async for piece in process.output():
                match piece:
                    case OutputPiece(stream=which, data=data):
                        log.say(decoders[which].decode(data))
                    case OutputGap(omitted=missing):
                        log.say(
                            f"\n[{counted(missing, 'byte')} left out: the output came too fast]\n"
                        )
        end = process.end
        if end is None or end.exit_code != 0:
            how = (
                "was killed"
                if end is None or end.exit_code is None
                else f"exited with {end.exit_code}"
            )
            raise Conflict(f"{work.title[:200]}: it {how}; the build's log says what it wrote")

    async def _keep(self, caller: Caller, sandbox: StoredSandbox, template: StoredTemplate) -> None:
        """Pack what has changed, seal it, and store it."""
        object_key, own_key = objects.new_key(caller.tenant_id, "templates"), new_key()
        bound_to = template_of(caller.tenant_id, template.id)
        most = sealed_size(sandbox.resources.disk_mb * _MIB + _HEADERS)
        async with self.database.tenant(caller.tenant_id) as tx:
            room = await ledger.reserve_room(tx, object_key, most, snapshot=False)
            sealed_key = await self.vault.seal(
                tx, caller.tenant_id, own_key.hex(), bound_to=bound_to
            )
        try:
            measured = Measured(room)
            async with self.using.pack_folder(caller, sandbox.id, UPPER) as stream:
                passing = measured.passing(stream.chunks())
                await self.objects.write(object_key, sealed(passing, own_key, bound_to=bound_to))
            content = TemplateContent(
                owner=caller.tenant_id,
                base_image=template.base_image,
                base_template=template.base_template,
                base_owner=template.base_owner,
                archive_bytes=measured.size,
                sha256=measured.sha256,
                sealed_key=sealed_key,
                object_key=object_key,
            )
            goes_on = await self._stored(caller, template, content, measured.size)
        except BaseException:
            await uninterrupted(self._give_up(caller, object_key))
            raise
        if not goes_on:
            raise Conflict("the build was given up meanwhile")

    async def _stored(
        self, caller: Caller, template: StoredTemplate, content: TemplateContent, size: int
    ) -> bool:
        """Store what the build has made; return whether the build goes on. Raises QuotaExceeded."""
        async with self.database.tenant(caller.tenant_id) as tx:
            # Locked until the transaction ends, so that the last bytes are given away only once.
            _, standing = await quotas.alone(tx)
            if (refused := template_refusal(standing, size)) is not None:
                raise refused
            kept = await ledger.keep_as(tx, content.object_key, sealed_size(size))
            return kept and await templates.keep(tx, template.id, content)

    async def _give_up(self, caller: Caller, object_key: str) -> None:
        async with self.database.tenant(caller.tenant_id) as tx:
            await ledger.give_up(tx, object_key)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
