"""Templates that the SDK builds, and sandboxes that are made from them."""

import asyncio
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.e2b_sdks.case import Cases
from tests.support.e2b_sdks.world import World

CASES = Cases()
WITHIN_S = 120.0
"""A tenant builds eight templates at once, and each version of the SDK has its own to build."""


COMMIT = "git -c user.name=a -c user.email=a@example.test commit -q --allow-empty -m first"
MAKE_WHEEL = """python3 -c '
import zipfile
name = "greeting-1.0"
with zipfile.ZipFile(f"{name}-py3-none-any.whl", "w") as wheel:
    wheel.writestr("greeting.py", "HELLO = 1")
    for file, text in (
        ("METADATA", "Metadata-Version: 2.1\\nName: greeting\\nVersion: 1.0\\n"),
        ("WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"),
        ("RECORD", ""),
    ):
        wheel.writestr(f"{name}.dist-info/{file}", text)
'"""
"""A package for pip that needs no index, and one for npm and one for apt."""
MAKE_NPM = """mkdir greets && echo 'module.exports = 2' > greets/index.js &&
echo '{"name": "greets", "version": "1.0.0"}' > greets/package.json"""
MAKE_DEB = """mkdir -p deb/DEBIAN deb/usr/share/greeted && printf '%s\\n' 'Package: greeted' \
'Version: 1.0' 'Architecture: all' 'Maintainer: nobody <nobody@example.test>' \
'Description: says hello' > deb/DEBIAN/control && echo 3 > deb/usr/share/greeted/hello &&
dpkg-deb --root-owner-group --build deb /opt/greeted.deb && rm -rf /etc/apt/sources.list*"""


def write_app(folder: Path) -> None:
    """Write what is copied into a template."""
    (folder / "app").mkdir()
    (folder / "app" / "main.py").write_text("print('from the template')")
    (folder / "one").write_text("1")
    (folder / "two").write_text("2")


async def begun(w: World, build: Callable[[], Any]) -> Any:
    """Return what a build returns, once there is room for one."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            return await w(build())
        except w.sdk.BuildException as error:
            if "templates already" not in str(error) or time.monotonic() > deadline:
                raise
        await asyncio.sleep(1)


@CASES.case("Template.build")
async def template_is_built(w: World) -> None:
    """By root and by the user; its sandboxes start where the steps have ended.

    Variables stay, what is in the home is the user's, and the size is the one that was asked for.
    """
    name = f"built_{uuid.uuid4().hex[:12]}"
    template = (
        w.sdk.Template()
        .from_base_image()
        # What another version has built by the same steps would not be done again.
        .run_cmd(f"echo mine > ~/made; : {name}")
        .run_cmd("echo by-root > /usr/local/share/made", user="root")
        .set_envs({"GREETING": "hello"})
        .set_workdir("work")
    )
    said: list[str] = []
    build = lambda: w.named("Template").build(  # noqa: E731
        template,
        name,
        cpu_count=1,
        memory_mb=384,
        on_build_logs=lambda entry: said.append(entry.message),
    )
    await begun(w, build)
    assert any("echo mine" in each for each in said), said
    async with w.own(template=name) as box:
        command = "cat ~/made /usr/local/share/made; echo $GREETING; test -O ~/made && pwd"
        ran = await w(box.commands.run(command))
        assert ran.stdout == "mine\nby-root\nhello\n/home/user/work\n"
        info = await w(box.get_info())
        assert (info.cpu_count, info.memory_mb) == (1, 384)


@CASES.case("Template.build", once=True)
async def template_is_built_by_steps_of_every_kind(w: World) -> None:
    name = f"steps-{uuid.uuid4().hex[:12]}"
    template = (
        w.sdk.Template()
        .from_base_image()
        .make_dir(["in", "out"], mode=0o700)
        .run_cmd(["echo 1 > in/first", "echo 2 > in/second", "echo 3 > in/third"])
        .rename("in/first", "out/renamed")
        .remove("in/second")
        .make_symlink("/home/user/in/third", "out/link")
        .set_user("root")
        .run_cmd("id -un > /opt/who")
        .set_user("user")
        .run_cmd(["git init -q origin", "cd origin", COMMIT])
        .git_clone("/home/user/origin", "cloned", depth=1)
    )
    await begun(w, lambda: w.named("Template").build(template, name))
    async with w.own(template=name) as box:
        command = "echo in/* out/*; cat out/renamed out/link /opt/who; id -un"
        ran = await w(box.commands.run(f"{command}; git -C cloned log -1 --format=%s"))
        assert ran.stdout == "in/third out/link out/renamed\n1\n3\nroot\nuser\nfirst\n"


@CASES.case("Template.build", "SandboxQuery:template", once=True)
async def template_names_a_user_and_its_sandboxes_are_listed(w: World) -> None:
    """Commands, terminals and files are that user's. Sandboxes are listed by id, name and tag."""
    name, query = f"user-{uuid.uuid4().hex[:12]}", w.sdk.SandboxQuery
    steps = (
        w.sdk.Template()
        .from_base_image()
        .run_cmd("useradd --create-home --shell /bin/bash app", user="root")
        .set_user("app")
        .run_cmd("echo mine > ~/made")
    )
    template = steps.set_start_cmd("id -un > ~/started", "test -s ~/started")
    info = await begun(w, lambda: w.named("Template").build(template, name))
    async with w.own(template=name) as box:
        ran = await w(box.commands.run("id -un; pwd; cat made started; test -O made && echo own"))
        assert ran.stdout == "app\n/home/app\nmine\napp\nown\n"
        wrote = await w(box.files.write("up", "x"))
        assert wrote.path == "/home/app/up"
        assert (await w(box.files.get_info("up"))).owner == "app"
        assert (await w(box.commands.run("cat up", user="app"))).stdout == "x"
        for user, why in (("user", "there is no user 'user'"), ("root", "nobody is root")):
            call = lambda user=user: box.commands.run("true", user=user)  # noqa: E731
            assert why in str(await w.raises("SandboxException", call))
        told = await w(box.get_info())
        assert (told.template_id, told.name) == (info.template_id, name)
        for wanted in (name, f"{name}:default", info.template_id):
            page = await w(w.Sandbox.list(query=query(template=wanted)).next_items())
            assert [each.sandbox_id for each in page] == [box.sandbox_id], wanted
        more = steps.run_cmd("echo more >> ~/made")
        again = await begun(w, lambda: w.named("Template").build(more, name))
        async with w.own(template=name) as second:
            ran = await w(second.commands.run("cat made"))
            assert ran.stdout == "mine\nmore\n"
            ids = [second.sandbox_id, box.sandbox_id]
            for wanted, found in (
                (name, ids), (f"{name}:default", ids[:1]), (again.template_id, ids[:1]),
                (info.template_id, ids[1:]),
            ):  # fmt: skip
                page = await w(w.Sandbox.list(query=query(template=wanted)).next_items())
                assert [each.sandbox_id for each in page] == found, wanted


@CASES.case("Template.build", once=True)
async def packages_are_installed(w: World) -> None:
    """Globally by pip, npm and apt, as root. An index is reached as egress rules permit."""
    name = f"packages-{uuid.uuid4().hex[:12]}"
    template = (
        w.sdk.Template()
        .from_template("base")
        .skip_cache()
        .run_cmd([MAKE_WHEEL, MAKE_NPM])
        .run_cmd(MAKE_DEB, user="root")
        .pip_install("/home/user/greeting-1.0-py3-none-any.whl")
        .npm_install("/home/user/greets", g=True)
        .apt_install("/opt/greeted.deb", no_install_recommends=True)
    )
    await begun(w, lambda: w.named("Template").build(template, name))
    async with w.own(template=name) as box:
        node = "NODE_PATH=$(npm root -g) node -p 'require(\"greets\")'"
        python = "python3 -c 'import greeting; print(greeting.HELLO)'"
        ran = await w(box.commands.run(f"{python}; {node}; cat /usr/share/greeted/hello"))
        assert ran.stdout == "1\n2\n3\n"


@CASES.case("Template.build")
async def template_starts_a_server(w: World) -> None:
    """Each of its sandboxes is made once the server listens; one that never does is no template."""
    name = f"serves-{uuid.uuid4().hex[:12]}"
    serves = "[[ -n $HOME ]] && exec python3 -m http.server 8000 --directory /etc"
    begins = w.sdk.Template().from_template("base")
    template = begins.set_start_cmd(serves, w.sdk.wait_for_port(8000))
    await begun(w, lambda: w.named("Template").build(template, name))
    async with w.own(template=name) as box:
        ran = await w(box.commands.run("curl -sS --fail http://127.0.0.1:8000/hostname"))
        assert ran.exit_code == 0
    failing = w.sdk.Template().from_base_image().set_start_cmd("exit 3", w.sdk.wait_for_port(1))
    call = lambda: w.named("Template").build(failing, f"{name}-not")  # noqa: E731
    said = str(await w.raises("BuildException", lambda: begun(w, call)))
    assert "start command exited with 3" in said, said


@CASES.case("Template.get_tags", "Template.assign_tags", "Template.remove_tags")
async def template_is_tagged(w: World) -> None:
    """A build has the tags that it was given, until they are moved to another one.

    It is built from a Dockerfile, whose last folder its sandboxes start in.
    """
    kind, name = w.named("Template"), f"tagged-{uuid.uuid4().hex[:12]}"
    lines = (
        "FROM e2bdev/base:latest", f"ARG WHO={name}", "ENV NAMED=$WHO", "WORKDIR /opt/app",
        "RUN id -un > who",
    )  # fmt: skip
    template = w.sdk.Template().from_dockerfile("\n".join(lines)).set_ready_cmd("test -f who")
    assert "RUN id -un > who" in kind.to_dockerfile(template)
    assert '"fromImage": "e2bdev/base:latest"' in kind.to_json(template)
    info = await begun(w, lambda: kind.build(template, name, tags=["v1", "v2"]))
    given = await w(kind.assign_tags(f"{name}:v1", ["stable", "v3"]))
    assert (given.build_id, sorted(given.tags)) == (info.build_id, ["stable", "v3"])
    await w(kind.remove_tags(name, "v2"))
    found = await w(kind.get_tags(name))
    assert {(each.tag, each.build_id) for each in found} == {
        (tag, info.build_id) for tag in ("stable", "v1", "v3")
    }
    async with w.own(template=f"{name}:stable") as box:
        ran = await w(box.commands.run("echo $NAMED; pwd; cat who; id -un"))
        assert ran.stdout == f"{name}\n/opt/app\nroot\nuser\n"
    await w.raises("TemplateException", lambda: kind.assign_tags("nobodys:v1", "v2"))


@CASES.case("Template.build_in_background", "Template.get_build_status")
async def build_is_followed(w: World) -> None:
    """Until it has failed, with its reason."""
    # There is no bun in the image.
    template = w.sdk.Template().skip_cache().from_image("base").bun_install("left-pad")
    name = f"followed-{uuid.uuid4().hex[:12]}"
    info = await begun(w, lambda: w.named("Template").build_in_background(template, name))
    deadline = time.monotonic() + WITHIN_S
    while (found := await w(w.named("Template").get_build_status(info))).status != "error":
        assert found.status in {"waiting", "building"}
        assert time.monotonic() < deadline
        await asyncio.sleep(0.3)
    assert "exited with 127" in found.reason.message


@CASES.case("Template.build:min_free_disk_mb")
async def files_are_copied_into_a_template(w: World) -> None:
    """Old versions bring them without a key, and are refused."""
    name = f"copied-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        write_app(Path(folder))
        template = (
            w.sdk.Template(file_context_path=folder)
            .from_base_image()
            .copy("app", "/home/user/app/")
            .copy_items([{"src": "one", "dest": "both/"}, {"src": "two", "dest": "both/"}])
        )
        await begun(w, lambda: w.named("Template").build(template, name))
    async with w.own(template=name) as box:
        ran = await w(box.commands.run("python3 app/main.py; cat both/one both/two"))
        assert ran.stdout == "from the template\n12"
