"""An image may call its user and home otherwise, and nothing else differs: files, cleaning, counts.

The templates that E2B's users know have a user `user` at home in `/home/user`.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import docker
import pytest

from runner.base.settings import Settings
from runner.sandbox.drive import use
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.images import Images
from runner.words.execution import InputFile, Program
from runner.words.sandbox import Isolation, UnixAccount
from tests.support import sandboxes
from tests.support.sandboxes import Bench

HOME = "/home/user"
TEMPLATES = {"base": "code", "code-interpreter-v1": "data"}
"""Each with the image whose packages it has."""


@pytest.fixture(scope="module", params=list(TEMPLATES))
def template(request: pytest.FixtureRequest) -> str:
    """Return a template that is on this host, as is the image that it is like."""
    name: str = request.param
    sandboxes.build_image(TEMPLATES[name])
    sandboxes.build_image(name)
    return name


@pytest.fixture
async def outside(tmp_path: Path, template: str) -> AsyncIterator[Bench]:
    """Return a bench for this template."""
    async with sandboxes.bench(tmp_path, image=template) as made:
        yield made


@pytest.fixture(params=list(Isolation))
async def inside(
    request: pytest.FixtureRequest, tmp_path: Path, template: str
) -> AsyncIterator[Bench]:
    """Return a bench for this template in each isolation."""
    async with sandboxes.bench(tmp_path, isolation=request.param, image=template) as made:
        made.limits = made.within(memory_mb=512, timeout_s=60)
        yield made


async def test_a_program_is_user_at_home(inside: Bench) -> None:
    """It starts there, may write there, and finds that folder whatever way it asks."""
    ran = await inside.bash(
        "pwd; echo $HOME ~ ~user; id -un; id -gn; readlink /workspace; "
        "python3 -c 'import os, pathlib; print(os.getcwd(), pathlib.Path.home()); "
        'print(pathlib.Path().owner(), oct(os.stat(".").st_mode))\'; '
        "node -p 'os.homedir()'; cat in; echo made > out",
        files=[InputFile("in", b"placed\n")],
    )
    assert ran.stdout.decode().split("\n") == [
        HOME,
        f"{HOME} {HOME} {HOME}",
        "user",
        "user",
        HOME,
        f"{HOME} {HOME}",
        "user 0o40700",
        HOME,
        "placed",
        "",
    ], ran
    assert ran.files == {"out": b"made\n"}


async def test_nothing_else_became_writable(outside: Bench) -> None:
    """Neither the folder above, nor the link that stands where the workspace is otherwise."""
    ran = await outside.bash(
        "for each in /home/other /workspace2 /usr/local/bin/x; do echo x > $each && echo wrote; "
        "done; ln -sfn /etc /workspace && echo moved; rm -f /workspace && echo removed; "
        "readlink /workspace"
    )
    assert ran.stdout.decode() == f"{HOME}\n"


async def test_sudo_says_that_nobody_is_root(outside: Bench) -> None:
    """And runs nothing."""
    ran = await outside.bash("sudo touch made")
    assert ran.ending.exit_code == 1
    assert "nobody is root in this sandbox: run the command as user, without sudo" in (
        ran.stderr.decode()
    )
    assert ran.files == {}


async def test_what_its_users_take_for_granted_is_there(outside: Bench) -> None:
    ran = await outside.bash("type -P python3 pip node npm npx git curl")
    assert ran.ending.exit_code == 0, ran


async def test_home_is_emptied_between_runs(inside: Bench) -> None:
    """The traces of a run there are seen from outside, and are gone for the next."""
    bounds = inside.limits.bounds
    async with inside.sandbox() as sandbox:
        leave = "mkdir -p a/b; echo x > a/b/c; chmod 0 a/b; chmod 755 ."
        await use(sandbox, Program(("bash", "-c", leave), {}), bounds, again=True)
        if inside.isolation is Isolation.CONTAINER:
            assert "files, seen from outside" in sandbox.container.traces()
        assert await sandbox.clean() == []
        assert sandbox.container.traces() == []
        look = Program(
            ("python3", "-c", "import os; print(os.listdir(), os.stat('.').st_mode)"), {}
        )
        assert (await use(sandbox, look, bounds, again=True)).stdout == b"[] 16832\n"


async def test_what_home_holds_is_counted(outside: Bench) -> None:
    """Its own bytes: those of the host's folder of that name would be another number."""
    async with outside.sandbox() as sandbox:
        before = sandbox.container.disk_bytes()
        assert before is not None
        fill = Program(("bash", "-c", "head -c 4194304 /dev/zero > four"), {})
        await use(sandbox, fill, outside.limits.bounds)
        assert sandbox.container.disk_bytes() == before + 4 * 2**20


async def test_its_packages_are_on_disk_once(template: str) -> None:
    """Its lowest layer is that of the image it is like, and what lies upon it is small."""
    settings = Settings()
    async with Engine(settings.docker_url, timeout_s=30, threads=2) as engine:
        images = Images(engine, settings.recipes_path)
        own, like = await images.find(template), await images.find(TEMPLATES[template])
    with contextlib.closing(docker.DockerClient(base_url=settings.docker_url)) as client:
        layers = [client.images.get(i.digest).attrs["RootFS"]["Layers"][0] for i in (own, like)]
    assert layers[0] == layers[1]
    assert own.size_bytes - like.size_bytes < 10**6
    assert (own.account, like.account) == (UnixAccount("user", HOME), UnixAccount())
