"""Sandbox images, which are built on this host from the distribution's own packages.

An image has two layers: the packages (minutes; `mmdebstrap`, `docker import`) and the supervisor
(a second; `docker build` without a network). Each carries a label with the hash of all that went
into it, and a build finds the image with that hash instead of making it again.
"""

import asyncio
import hashlib
import io
import json
import platform
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from runner.base.recipe import Recipe, read_recipe
from runner.base.settings import Settings
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.layering import ImageOrder, write_aside
from runner.sandbox.engine.rootfs import (
    BUILD_TIMEOUT_S,
    EPOCH,
    build_folder,
    codename,
    make_archive,
    mmdebstrap_command,
)
from runner.sandbox.engine.spec import CONTEXTS, SUPERVISOR
from runner.sandbox.engine.template_image import (
    BYTES_LABEL,
    REPOSITORY,
    TEMPLATE_LABEL,
    TENANT_LABEL,
    TemplateImage,
    repository_of,
)
from runner.sandbox.engine.users import NOBODY
from runner.words.errors import ImageMissing, SetupError
from runner.words.sandbox import USER, WORKSPACE, UnixAccount, account_called
from runner.words.templates import template_in

NAME_LABEL = "runner.image"
RECIPE_LABEL = "runner.recipe"
HOME_LABEL = "runner.home"
USER_LABEL = "runner.user"
BASE_LABEL = "runner.base"
TAR_LABEL = "runner.tar.sha256"
COMMANDS = "bin"
"""The folder of commands that every image has."""
PRELOAD = "preload.txt"
SITE = "/usr/lib/python3/dist-packages"
LOAD = "'import sys; __import__(sys.argv[1])'"
KEPT_S = 1.0
"""How old an answer may be to which image a recipe gives: every launch asks, and Docker's list
takes 2 ms, the recipe's hash another."""


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image on this host. `current` says that today's recipe would give the same."""

    name: str
    digest: str
    recipe: str
    size_bytes: int
    created: int
    current: bool
    account: UnixAccount


class Images:
    """The sandbox images of one Docker daemon."""

    def __init__(self, engine: Engine, recipes_dir: Path) -> None:
        self._engine = engine
        self._recipes_dir = recipes_dir
        self._found: dict[str, tuple[float, BuiltImage]] = {}

    async def require(self, name: str) -> str:
        """Return the digest of the image that the recipe gives. Raises as `find` does."""
        return (await self.find(name)).digest

    async def find(self, name: str) -> BuiltImage:
        """Return the image that the recipe gives, as of `KEPT_S` ago at most.

        Raises ImageMissing; of one that has gone meanwhile, Docker tells when a sandbox is made.
        """
        if (known := self._found.get(name)) and time.monotonic() - known[0] < KEPT_S:
            return known[1]
        if (template := template_in(name)) is not None:
            return await self.find_template(name, template)
        if (image := await self._current(name)) is not None:
            self._found[name] = (time.monotonic(), image)
            return image
        raise ImageMissing(
            f"the sandbox image {name!r} is not on this host; `runner images build {name}` makes it"
        )

    async def find_template(
        self, name: str, template: UUID, tenant: UUID | None = None
    ) -> BuiltImage:
        """Return the image of a template: of this tenant's, if one is given. Raises ImageMissing.

        No two tenants have a template of one id: where images say so, none counts by its id alone.
        """
        found = await self._engine.images(f"{TEMPLATE_LABEL}={template}")
        owners = {facts["Labels"].get(TENANT_LABEL) for facts in found}
        if tenant is None and len(owners) > 1:
            raise ImageMissing(f"images of several tenants claim to be the template {name}")
        for facts in found:
            if tenant is not None and facts["Labels"].get(TENANT_LABEL) != str(tenant):
                continue
            image = BuiltImage(
                name=name,
                digest=facts["Id"],
                recipe="",
                size_bytes=facts["Size"],
                created=facts["Created"],
                current=True,
                account=_account(facts["Labels"]),
            )
            self._found[name] = (time.monotonic(), image)
            return image
        raise ImageMissing(f"no image of the template {name} is on this host")

    async def add_template(
        self, made: TemplateImage, base: BuiltImage, archive: Path, *, most: int
    ) -> BuiltImage:
        """Make a template's image of its base, and of what its build changed.

        The archive is as its sandbox packed it, and its files have at most `most` bytes. What is
        written beside it is gone afterwards. Raises Invalid if it holds what no template may.
        """
        account = account_called(made.user, base.account)
        labels = {
            TEMPLATE_LABEL: str(made.template),
            TENANT_LABEL: str(made.tenant),
            HOME_LABEL: account.home,
            USER_LABEL: account.user,
        }
        image = archive.with_suffix(".image")
        order = ImageOrder(
            archive=str(archive),
            image=str(image),
            most=most,
            **asdict(account),
            moved=account.home != base.account.home,
            base=await self._engine.image(base.digest),
            tag=made.tag,
            labels=labels,
        )
        try:
            await write_aside(order)
            await self._engine.load_image(image)
        finally:
            image.unlink(missing_ok=True)
        return await self.find_template(made.name, made.template, made.tenant)

    async def templates(self, node: str) -> list[TemplateImage]:
        """Return the templates whose images a node has made."""
        return [
            TemplateImage(
                "",
                UUID(each["Labels"][TEMPLATE_LABEL]),
                UUID(each["Labels"][TENANT_LABEL]),
                node,
                int(each["Labels"].get(BYTES_LABEL, 0)),
            )
            for each in await self._engine.images(TEMPLATE_LABEL)
            for tag in each["RepoTags"] or ()
            if tag.startswith(f"{repository_of(node)}:")
        ]

    async def remove_template(self, made: TemplateImage) -> bool:
        """Remove a template's image, unless a sandbox has it; return whether it is gone."""
        return await self._engine.remove_image(made.tag)

    async def list_images(self) -> list[BuiltImage]:
        """Return every sandbox image on this host, the newest first."""
        listed = await self._engine.images(RECIPE_LABEL)
        names = {facts["Labels"][NAME_LABEL] for facts in listed}
        wanted = {name: self._hash(name) if self._known(name) else None for name in names}
        found = [_built(facts, wanted[facts["Labels"][NAME_LABEL]]) for facts in listed]
        return sorted(found, key=lambda image: image.created, reverse=True)

    async def build(
        self, name: str, settings: Settings, say: Callable[[str], None] = lambda _: None
    ) -> BuiltImage:
        """Return the image of this recipe, making what of it is not there yet.

        A build takes about 1 GB of disk below the state folder while it lasts. Raises SetupError
        when the recipe is not valid or this host cannot build it.
        """
        if (found := await self._current(name)) is not None:
            return found
        base_hash = self._base_hash(self._recipe(name))
        # Held to the end, so that builds at once do not make two images of one recipe.
        async with build_folder(settings.state_dir, base_hash[:12]) as folder:
            if (found := await self._current(name)) is not None:
                return found  # by another build, while this one waited for the folder
            base = await self._base(base_hash)
            if base is None:
                say(f"building {name} from {codename()} packages (one or two minutes, once)")
                await self._build_base(name, folder, settings)
                base = await self._base(base_hash)
            if base is None:
                raise SetupError(f"the base of image {name} was built, but Docker does not list it")
            say(f"adding the supervisor to {name}")
            recipe = self._hash(name)
            await self._engine.build(
                self._context(name, base, recipe), tag=f"{REPOSITORY}/{name}:{recipe[:12]}"
            )
            if (found := await self._current(name)) is None:
                raise SetupError(f"image {name} was built, but Docker does not list it")
            return found

    async def _base(self, base_hash: str) -> str | None:
        """Return the id of the packages' layer: by id, a build never looks to a registry."""
        for facts in await self._engine.images(f"{BASE_LABEL}={base_hash}"):
            if RECIPE_LABEL not in facts["Labels"]:
                return str(facts["Id"])
        return None

    async def _current(self, name: str) -> BuiltImage | None:
        """Return the image that the recipe gives. Other images cost nothing here."""
        if not self._known(name):
            return None
        wanted = self._hash(name)
        found = [
            _built(facts, wanted)
            for facts in await self._engine.images(f"{RECIPE_LABEL}={wanted}")
            if facts["Labels"][NAME_LABEL] == name
        ]
        return max(found, key=lambda image: image.created, default=None)

    async def _build_base(self, name: str, folder: Path, settings: Settings) -> None:
        tar = folder / "root.tar"
        await make_archive(self._recipe(name), tar, settings.patient(BUILD_TIMEOUT_S))
        await self.add_base(name, tar)

    async def add_base(self, name: str, tar: Path) -> None:
        """Make the packages' layer of an archive, which the recipe's command has written."""
        base_hash = self._base_hash(self._recipe(name))
        digest = await asyncio.to_thread(_sha256, tar)
        await self._engine.import_image(
            tar,
            repository=f"{REPOSITORY}/{name}-base",
            tag=base_hash[:12],
            changes=[f"LABEL {NAME_LABEL}={name} {BASE_LABEL}={base_hash} {TAR_LABEL}={digest}"],
        )

    def _context(self, name: str, base: str, recipe: str) -> io.BytesIO:
        """Return the build context of the upper layer: what we add, owned by root."""
        steps = (
            f"FROM {base}\n"
            f"{_steps(self._recipe(name).account)}"
            f"LABEL {NAME_LABEL}={name} {RECIPE_LABEL}={recipe}\n"
        )
        files = {f"{p.parent.name}/{p.name}": p.read_bytes() for p in self._ours()}
        preload = self._recipe(name).preload
        files[f"supervisor/{PRELOAD}"] = "".join(f"{module}\n" for module in preload).encode()
        files["Dockerfile"] = steps.encode()
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for path, content in sorted(files.items()):
                entry = tarfile.TarInfo(path)
                entry.size, entry.mtime = len(content), int(EPOCH)
                entry.mode = 0o755 if path.startswith(f"{COMMANDS}/") else 0o644
                archive.addfile(entry, io.BytesIO(content))
        context.seek(0)
        return context

    def _ours(self) -> list[Path]:
        """Return the files that go into every image."""
        folders = (self._recipes_dir / name for name in ("contexts", "site", "supervisor"))
        found = (path for folder in folders for path in folder.iterdir())
        programs = [path for path in found if path.suffix in {".py", ".cjs", ".mjs"}]
        return sorted([*programs, *(self._recipes_dir / COMMANDS).iterdir()])

    def _known(self, name: str) -> bool:
        return (self._recipes_dir / name / "recipe.toml").is_file()

    def _recipe(self, name: str) -> Recipe:
        return read_recipe(self._recipes_dir, name)

    def _base_hash(self, recipe: Recipe) -> str:
        what = mmdebstrap_command(recipe, Path("root.tar"), sources=[])
        return hashlib.sha256(json.dumps([what, platform.machine()]).encode()).hexdigest()

    def _hash(self, name: str) -> str:
        recipe = self._recipe(name)
        total = hashlib.sha256(self._base_hash(recipe).encode())
        total.update(_steps(recipe.account).encode())
        total.update(json.dumps(recipe.preload).encode())
        for path in self._ours():
            total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return total.hexdigest()


def _built(facts: Mapping[str, Any], wanted: str | None) -> BuiltImage:
    """Return an image as Docker lists it. `wanted` is the hash of its recipe today, if any."""
    labels = facts["Labels"]
    return BuiltImage(
        name=labels[NAME_LABEL],
        digest=facts["Id"],
        recipe=labels[RECIPE_LABEL],
        size_bytes=facts["Size"],
        created=facts["Created"],
        current=labels[RECIPE_LABEL] == wanted,
        account=_account(labels),
    )


def _account(labels: Mapping[str, str]) -> UnixAccount:
    return UnixAccount(labels.get(USER_LABEL, USER), labels.get(HOME_LABEL, WORKSPACE))


def _steps(account: UnixAccount) -> str:
    """Return what makes the upper layer, apart from what it is made upon and called."""
    # runc gives a tmpfs the mode of the folder it covers, whatever its options say.
    move = (
        f"RUN mkdir -p {account.home} && chmod 0700 {account.home} "
        f"&& rmdir {WORKSPACE} && ln -s {account.home} {WORKSPACE}\n"
    )
    return (
        f"COPY supervisor {SUPERVISOR}\n"
        f"COPY contexts {CONTEXTS}\n"
        f"COPY site {SITE}\n"
        f"COPY {COMMANDS} /usr/local/bin\n"
        f"RUN python3 -I -S -m compileall -q {CONTEXTS} {SITE}/sitecustomize.py"
        # Without docstrings, which every idle sandbox would hold in memory.
        f" && python3 -I -S -m compileall -q -o 2 {SUPERVISOR} && cd {SUPERVISOR}/__pycache__"
        " && for each in *.opt-2.pyc; do mv $each ${each%.opt-2.pyc}.pyc; done\n"
        # A list that does not load is no image.
        f"RUN xargs -a {SUPERVISOR}/{PRELOAD} -rn 1 python3 -c {LOAD}\n"
        f"{move if account.home != WORKSPACE else ''}"
        # Each sandbox is given a user of its own; nobody is root by an oversight.
        f"USER {NOBODY}:{NOBODY}\n"
        f"LABEL {HOME_LABEL}={account.home} {USER_LABEL}={account.user}\n"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
