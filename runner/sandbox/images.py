"""What sandboxes are made of: images built on this host from the distribution's own packages.

An image has two layers: the packages (minutes; `mmdebstrap`, `docker import`) and the supervisor
(a second; `docker build` without a network). Each carries a label with the hash of all that went
into it, and a build finds the image with that hash instead of making it again.
"""

import asyncio
import hashlib
import io
import json
import os
import platform
import re
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    StringConstraints,
    ValidationError,
    model_validator,
)

from runner.errors import ImageMissing, SetupError
from runner.sandbox.engine import Engine
from runner.sandbox.spec import SUPERVISOR, UID

REPOSITORY = "agent-runner"
NAME_LABEL = "runner.image"
RECIPE_LABEL = "runner.recipe"
BASE_LABEL = "runner.base"
TAR_LABEL = "runner.tar.sha256"
PRELOAD = "preload.txt"
LOAD = "'import sys; __import__(sys.argv[1])'"
_BUILD_TIMEOUT_S = 1800
KEPT_S = 1.0
"""How old an answer may be to which image a recipe gives: every launch asks, and Docker's list
takes 2 ms, the recipe's hash another."""
# Fixed, so that the same packages give the same archive (reproducible-builds.org).
_EPOCH = "1700000000"


Module = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")
]


class Recipe(BaseModel):
    """What goes into an image: `sandbox_images/<name>/recipe.toml`.

    One that is `like` another has that one's packages, and only a list of its own to load.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    like: str | None = None
    packages: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    bytecode: tuple[str, ...] = ()
    preload: tuple[Module, ...] = ()
    """Python modules that a sandbox which is started ahead has imported when it is claimed."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.like is None) == (not self.packages):
            raise ValueError("a recipe has either packages, or another that it is like")
        return self


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image on this host. `current` says that today's recipe would give the same."""

    name: str
    digest: str
    recipe: str
    size_bytes: int
    created: int
    current: bool


class Images:
    """The sandbox images of one Docker daemon."""

    def __init__(self, engine: Engine, recipes_dir: Path) -> None:
        self._engine = engine
        self._recipes_dir = recipes_dir
        self._found: dict[str, tuple[float, str]] = {}

    async def require(self, name: str) -> str:
        """Return the digest of the image that the recipe gives, as of `KEPT_S` ago at most.

        Raises ImageMissing; of one that has gone meanwhile, Docker tells when a sandbox is made.
        """
        looked_at, digest = self._found.get(name, (float("-inf"), ""))
        if time.monotonic() - looked_at < KEPT_S:
            return digest
        for image in await self.list_images():
            if image.name == name and image.current:
                self._found[name] = (time.monotonic(), image.digest)
                return image.digest
        raise ImageMissing(
            f"the sandbox image {name!r} is not on this host; `runner images build {name}` makes it"
        )

    async def list_images(self) -> list[BuiltImage]:
        """Return every sandbox image on this host, the newest first."""
        wanted: dict[str, str | None] = {}
        found = []
        for facts in await self._engine.images(RECIPE_LABEL):
            name, recipe = facts["Labels"][NAME_LABEL], facts["Labels"][RECIPE_LABEL]
            if name not in wanted:
                wanted[name] = self._hash(name) if self._known(name) else None
            found.append(
                BuiltImage(
                    name=name,
                    digest=facts["Id"],
                    recipe=recipe,
                    size_bytes=facts["Size"],
                    created=facts["Created"],
                    current=recipe == wanted[name],
                )
            )
        return sorted(found, key=lambda image: image.created, reverse=True)

    async def build(self, name: str, say: Callable[[str], None] = lambda _: None) -> BuiltImage:
        """Return the image of this recipe, making what of it is not there yet.

        Raises SetupError when the recipe is not valid or this host cannot build it.
        """
        if (found := await self._current(name)) is not None:
            return found
        base_hash = self._base_hash(name)
        if (base := await self._base(base_hash)) is None:
            say(f"building {name} from {codename()} packages (one or two minutes, once)")
            await self._build_base(name, base_hash)
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
        images = await self.list_images()
        return next((i for i in images if i.name == name and i.current), None)

    async def _build_base(self, name: str, base_hash: str) -> None:
        recipe = self._packages(name)
        with tempfile.TemporaryDirectory(prefix="runner-image-") as folder:
            tar = Path(folder) / "root.tar"
            await _run(mmdebstrap_command(recipe, tar))
            digest = await asyncio.to_thread(_sha256, tar)
            await self._engine.import_image(
                tar,
                repository=f"{REPOSITORY}/{name}-base",
                tag=base_hash[:12],
                changes=[
                    f"LABEL {NAME_LABEL}={name} {BASE_LABEL}={base_hash} {TAR_LABEL}={digest}"
                ],
            )

    def _context(self, name: str, base: str, recipe: str) -> io.BytesIO:
        """Return the build context of the upper layer: the supervisor, owned by root."""
        steps = (
            f"FROM {base}\n"
            f"COPY supervisor {SUPERVISOR}\n"
            f"RUN python3 -I -S -m compileall -q {SUPERVISOR}\n"
            # A list that does not load is no image.
            f"RUN xargs -a {SUPERVISOR}/{PRELOAD} -rn 1 python3 -c {LOAD}\n"
            f"USER {UID}:{UID}\n"
            f"LABEL {NAME_LABEL}={name} {RECIPE_LABEL}={recipe}\n"
        )
        files = {f"supervisor/{p.name}": p.read_bytes() for p in self._supervisor()}
        preload = self._recipe(name).preload
        files[f"supervisor/{PRELOAD}"] = "".join(f"{module}\n" for module in preload).encode()
        files["Dockerfile"] = steps.encode()
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for path, content in sorted(files.items()):
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode, entry.mtime = len(content), 0o644, int(_EPOCH)
                archive.addfile(entry, io.BytesIO(content))
        context.seek(0)
        return context

    def _supervisor(self) -> list[Path]:
        folder = self._recipes_dir / "supervisor"
        return sorted(path for path in folder.iterdir() if path.suffix in {".py", ".cjs"})

    def _known(self, name: str) -> bool:
        return (self._recipes_dir / name / "recipe.toml").is_file()

    def _recipe(self, name: str) -> Recipe:
        path = self._recipes_dir / name / "recipe.toml"
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name) or not path.is_file():
            raise SetupError(f"there is no recipe for an image named {name!r} ({path})")
        try:
            return Recipe.model_validate(tomllib.loads(path.read_text()))
        except (ValidationError, tomllib.TOMLDecodeError) as error:
            raise SetupError(f"{path} is not a recipe: {error}") from error

    def _packages(self, name: str) -> Recipe:
        """Return the recipe that names this image's packages."""
        recipe = self._recipe(name)
        if recipe.like is None:
            return recipe
        other = self._recipe(recipe.like)
        if other.like is not None:
            raise SetupError(f"image {name} is like {recipe.like}, which is like {other.like}")
        return other

    def _base_hash(self, name: str) -> str:
        recipe = self._packages(name)
        what = mmdebstrap_command(recipe, Path("root.tar"), sources=[])
        return hashlib.sha256(json.dumps([what, platform.machine()]).encode()).hexdigest()

    def _hash(self, name: str) -> str:
        total = hashlib.sha256(self._base_hash(name).encode())
        total.update(SUPERVISOR.encode())
        total.update(json.dumps(self._recipe(name).preload).encode())
        for path in self._supervisor():
            total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return total.hexdigest()


def mmdebstrap_command(recipe: Recipe, tar: Path, sources: list[Path] | None = None) -> list[str]:
    """Return the command that makes the root file system's archive."""
    hooks = [
        # Compiled against the root's own paths; a stray Python 2 file is no reason to fail.
        *(f'chroot "$1" python3 -m compileall -q -j 0 {path} || true' for path in recipe.bytecode),
        # no-new-privileges makes them useless; gone is better.
        'find "$1" -xdev -type f -perm /6000 -exec chmod a-s {} +',
        f'echo "agent:x:{UID}:{UID}::/workspace:/bin/bash" >> "$1/etc/passwd"',
        f'echo "agent:x:{UID}:" >> "$1/etc/group"',
        # runc gives a tmpfs the mode of the folder it covers, whatever its options say.
        'mkdir -p "$1/run/sandbox" && mkdir -m 0700 "$1/workspace" && chmod 1777 "$1/tmp"',
        'rm -f "$1/etc/machine-id" "$1/var/lib/dbus/machine-id" "$1/etc/hostname"',
        'rm -rf "$1"/var/cache/* "$1"/var/log/*',
        # World-writable folders of the root: read-only in a sandbox, but none is needed.
        'find "$1" -xdev -type d -perm -0002 ! -path "$1/tmp" -exec chmod o-w {} +',
    ]
    return [
        "mmdebstrap",
        "--variant=minbase",
        "--include=" + ",".join(recipe.packages),
        # The build is thrown away when it is interrupted: no need for fsync.
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={path}" for path in recipe.exclude),
        '--aptopt=Acquire::Languages "none"',
        *(f"--customize-hook={hook}" for hook in hooks),
        codename(),
        str(tar),
        *(str(path) for path in (apt_sources(codename()) if sources is None else sources)),
    ]


def codename() -> str:
    """Return this host's distribution release, such as bookworm or noble."""
    release = platform.freedesktop_os_release()
    name = release.get("VERSION_CODENAME", "")
    if not re.fullmatch(r"[a-z]+", name):
        raise SetupError("sandbox images are built on Debian or Ubuntu; this host is neither")
    return name


def apt_sources(release: str, folder: Path = Path("/etc/apt")) -> list[Path]:
    """Return the files from which this host's apt takes this release's packages."""
    candidates = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    suite = re.compile(rf"(?<![\w-]){release}(?![\w])")
    found = [
        path
        for path in candidates
        if path.suffix in {".list", ".sources"}
        and path.is_file()
        and suite.search(path.read_text())
    ]
    if not found:
        raise SetupError(f"no file below {folder} names the release {release}")
    return found


async def _run(command: list[str]) -> None:
    environment = {
        "PATH": os.defpath + ":/usr/sbin:/sbin",
        "SOURCE_DATE_EPOCH": _EPOCH,
        "LANG": "C.UTF-8",
    }
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except FileNotFoundError:
        raise SetupError(
            "mmdebstrap is not installed; on Debian or Ubuntu: apt-get install mmdebstrap"
        ) from None
    try:
        async with asyncio.timeout(_BUILD_TIMEOUT_S):
            output, _ = await process.communicate()
    except BaseException:
        process.terminate()
        await process.wait()
        raise
    if process.returncode != 0:
        last = output.decode(errors="replace").strip().splitlines()[-5:]
        raise SetupError("mmdebstrap failed: " + " | ".join(last))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
