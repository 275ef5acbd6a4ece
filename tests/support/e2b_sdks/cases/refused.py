"""Unsupported features: refused loudly, with a message that names each."""

from typing import Any

from tests.support.e2b_sdks.case import Cases
from tests.support.e2b_sdks.world import World

CASES = Cases()


async def unsupported(
    w: World, call: Any, reasons: tuple[str, ...] = ("not supported here",)
) -> None:
    """Check that an operation is refused with a reason, by whatever exception."""
    try:
        got = await w(call())
    except Exception as error:  # noqa: BLE001 - each part of the SDK has its own
        said = str(error)
    else:
        raise AssertionError(f"not refused: {got!r}")
    assert any(each in said for each in reasons), said


async def refused(w: World, word: str, call: Any) -> None:
    """Check that an operation is refused, by name."""
    said = str(await w.raises("SandboxException", call))
    assert word in said.lower(), said


@CASES.case()
async def template_that_is_unknown(w: World) -> None:
    await refused(w, "no-such-template", lambda: w.Sandbox.create("no-such-template"))


@CASES.case()
async def root_is_refused(w: World) -> None:
    await refused(w, "root", lambda: w.box.commands.run("true", user="root"))
    await refused(w, "root", lambda: w.box.files.read("/etc/hostname", user="root"))


@CASES.case("Sandbox.create:mcp")
async def mcp_gateway_is_refused(w: World) -> None:
    await refused(w, "mcp", lambda: w.Sandbox.create(mcp={"time": {}}))


@CASES.case("Sandbox.create:volume_mounts")
async def volumes_are_refused(w: World) -> None:
    mounts = {"/mnt/data": "a-volume"}
    await refused(w, "volume", lambda: w.Sandbox.create(volume_mounts=mounts))


@CASES.case("Sandbox.create:iam")
async def workload_identity_is_refused(w: World) -> None:
    tokens = {"own": {"audience": "https://example.com", "token_type": "JWT-SVID"}}
    await refused(w, "iam", lambda: w.Sandbox.create(iam={"tokens": tokens}))


@CASES.case("files.write:metadata")
async def metadata_of_files_are_refused(w: World) -> None:
    """By the client itself, which knows by our version of the daemon that there are none."""
    write = w.box.files.write
    await w.raises("TemplateException", lambda: write("labelled", "x", metadata={"a": "b"}))


async def unbuilt(w: World, template: Any, reason: str) -> None:
    """Check that a build is refused at once, for this reason."""
    build = lambda: w.named("Template").build(template, "refused")  # noqa: E731
    await unsupported(w, build, (reason,))


@CASES.case("Template.build")
async def image_that_is_unknown(w: World) -> None:
    """It is refused by its name, with what there is."""
    of = w.sdk.Template
    for template, image in (
        (of().from_image("python:3.12"), "python:3.12"),
        (of().from_python_image("3.11"), "python:3.11"),
        (of().from_debian_image("trixie"), "debian:trixie"),
        (of().from_ubuntu_image("22.04"), "ubuntu:22.04"),
        (of().from_node_image("24"), "node:24"),
        (of().from_bun_image("1"), "oven/bun:1"),
    ):
        await unbuilt(w, template, f"there is no image {image!r}")


@CASES.case("Template.from_alpine_image")
async def image_of_a_new_version_that_is_unknown(w: World) -> None:
    of = w.sdk.Template
    for template, image in (
        (of().from_alpine_image("3"), "alpine:3"),
        (of().from_arch_image("base"), "archlinux:base"),
        (of().from_fedora_image("44"), "fedora:44"),
    ):
        await unbuilt(w, template, f"there is no image {image!r}")


@CASES.case("Template.build")
async def registries_are_refused(w: World) -> None:
    of = w.sdk.Template
    account = {"type": "service_account"}
    for template in (
        of().from_aws_registry("own", "key", "secret", "eu-west-1"),
        of().from_gcp_registry("own", account),
    ):
        await unbuilt(w, template, "no registry is used")


@CASES.case("Template.build")
async def templates_of_their_own_are_missing(w: World) -> None:
    gateway = w.sdk.Template().from_template("mcp-gateway").add_mcp_server("time")
    await unbuilt(w, gateway, "there is no template 'mcp-gateway'")
    begins = w.sdk.Template().from_template("devcontainer")
    container = begins.beta_dev_container_prebuild("/own").beta_set_dev_container_start("/own")
    await unbuilt(w, container, "there is no template 'devcontainer'")


@CASES.case("Template.build")
async def template_of_root_is_refused(w: World) -> None:
    """At once, and with what to do: otherwise its users would think that they are root."""
    of = w.sdk.Template
    made = of().from_base_image().run_cmd("echo by-user").set_user("root").run_cmd("echo by-root")
    await unbuilt(w, made, "nobody is root in a sandbox")
    await unbuilt(w, of().from_dockerfile("FROM base\nUSER root\nRUN id"), 'set_user("user")')


@CASES.case("Volume.get_info", "Volume.read_file")
async def volumes_are_missing(w: World) -> None:
    kind = w.named("Volume")
    for call in (
        lambda: kind.create("own"),
        lambda: kind.connect("own"),
        lambda: kind.destroy("own"),
        lambda: kind.get_info("own"),
        lambda: kind.list(),  # noqa: PLW0108 - the page's test looks for the call
    ):
        await unsupported(w, call)
    # Nobody can have one; with an id that somebody made up, its contents are refused, too.
    held = kind(volume_id="own", name="own", token="none")  # noqa: S106 - no secret
    for call in (
        lambda: held.exists("x"),
        lambda: held.make_dir("x"),
        lambda: held.read_file("x"),
        lambda: held.remove("x"),
        lambda: held.update_metadata("x", mode=0o600),
        lambda: held.write_file("x", "y"),
    ):
        # Its token is none of ours.
        await unsupported(w, call, ("not supported here", "API key"))


@CASES.case("Secret.create")
async def secrets_are_missing(w: World) -> None:
    kind = w.named("Secret")
    for call in (
        lambda: kind.create("own", "value"),
        lambda: kind.destroy("own"),
        lambda: kind.exists("own"),
        lambda: kind.get_info("own"),
        lambda: kind.list().next_items(),
        lambda: kind.update("own", "value"),
    ):
        await unsupported(w, call)


@CASES.case("Sandbox.get_mcp_token")
async def mcp_token_is_refused(w: World) -> None:
    """Its file is the user root's."""
    await refused(w, "root", lambda: w.box.get_mcp_token())  # noqa: PLW0108 - as above
