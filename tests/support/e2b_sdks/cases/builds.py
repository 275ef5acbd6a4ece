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


def write_app(folder: Path) -> None:
    """Write what is copied into a template."""
    (folder / "app").mkdir()
    (folder / "app" / "main.py").write_text("print('from the template')")


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
    """By root and by the user; variables stay, and what is in the home is the user's."""
    name = f"built-{uuid.uuid4().hex[:12]}"
    template = (
        w.sdk.Template()
        .from_base_image()
        # What another version has built by the same steps would not be done again.
        .run_cmd(f"echo mine > ~/made; : {name}")
        .run_cmd("echo by-root > /usr/local/share/made", user="root")
        .set_envs({"GREETING": "hello"})
    )
    said: list[str] = []
    build = lambda: w.named("Template").build(  # noqa: E731
        template, name, on_build_logs=lambda entry: said.append(entry.message)
    )
    await begun(w, build)
    assert any("echo mine" in each for each in said), said
    async with w.own(template=name) as box:
        command = "cat ~/made /usr/local/share/made; echo $GREETING; test -O ~/made && echo own"
        ran = await w(box.commands.run(command))
        assert ran.stdout == "mine\nby-root\nhello\nown\n"


@CASES.case("Template.build")
async def template_starts_a_server(w: World) -> None:
    """Each of its sandboxes is made once the server listens; one that never does is no template."""
    name = f"serves-{uuid.uuid4().hex[:12]}"
    serves = "[[ -n $HOME ]] && exec python3 -m http.server 8000 --directory /etc"
    template = w.sdk.Template().from_base_image().set_start_cmd(serves, w.sdk.wait_for_port(8000))
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
    """A build has the tags that it was given, until they are moved to another one."""
    kind, name = w.named("Template"), f"tagged-{uuid.uuid4().hex[:12]}"
    template = w.sdk.Template().from_base_image().run_cmd(f": {name}")
    info = await begun(w, lambda: kind.build(template, name, tags=["v1", "v2"]))
    given = await w(kind.assign_tags(f"{name}:v1", ["stable", "v3"]))
    assert (given.build_id, sorted(given.tags)) == (info.build_id, ["stable", "v3"])
    await w(kind.remove_tags(name, "v2"))
    found = await w(kind.get_tags(name))
    assert {(each.tag, each.build_id) for each in found} == {
        (tag, info.build_id) for tag in ("stable", "v1", "v3")
    }
    async with w.own(template=f"{name}:stable") as box:
        assert (await w(box.commands.run("true"))).exit_code == 0
    await w.raises("TemplateException", lambda: kind.assign_tags("nobodys:v1", "v2"))


@CASES.case("Template.build_in_background", "Template.get_build_status")
async def build_is_followed(w: World) -> None:
    """Until it has failed, with its reason."""
    template = w.sdk.Template().from_base_image().run_cmd("exit 3")
    name = f"followed-{uuid.uuid4().hex[:12]}"
    info = await begun(w, lambda: w.named("Template").build_in_background(template, name))
    deadline = time.monotonic() + WITHIN_S
    while (found := await w(w.named("Template").get_build_status(info))).status != "error":
        assert found.status in {"waiting", "building"}
        assert time.monotonic() < deadline
        await asyncio.sleep(0.3)
    assert "exited with 3" in found.reason.message


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
        )
        await begun(w, lambda: w.named("Template").build(template, name))
    async with w.own(template=name) as box:
        ran = await w(box.commands.run("python3 app/main.py"))
        assert ran.stdout == "from the template\n"
