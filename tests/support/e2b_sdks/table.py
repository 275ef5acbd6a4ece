"""The support of each method of the newest SDKs, and of each version: the tables in `docs/e2b.md`.

`python -m tests.support.e2b_sdks.table` writes them there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.e2b_sdks.targets import SINCE, TARGETS, VERSIONS

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/e2b.md"
MARKS = {
    each: (f"<!-- {each}: begin -->\n", f"<!-- {each}: end -->\n") for each in ("table", "versions")
}


@dataclass(frozen=True)
class Line:
    """The support of a method, and the case that shows it; none for what makes no request."""

    what: str
    case: str | None = None


def _works(**cases: str) -> dict[str, Line]:
    """Return lines of methods by the case that shows them."""
    return {
        method: Line("works", case) for case, methods in cases.items() for method in methods.split()
    }


def _one(what: str, case: str, methods: str) -> dict[str, Line]:
    return {method: Line(what, case) for method in methods.split()}


def _refused(reason: str, case: str, methods: str) -> dict[str, Line]:
    return _one(f"refused: {reason}", case, methods)


def _plain(what: str, names: str) -> dict[str, Line]:
    return {name: Line(what) for name in names.split()}


VOLUMES = "there are no volumes; keep files in snapshots, or by `/v1/files`"
SECRETS = "write secrets by `/v1/secrets`, and let the egress proxy set them"

LINES: dict[str, Line] = {
    **_works(
        created_and_killed="Sandbox.create Sandbox.kill Sandbox.is_running",
        connected_to="Sandbox.connect",
        described="Sandbox.get_info",
        listed_by_metadata_and_state="Sandbox.list",
        timeout_is_set="Sandbox.set_timeout",
        template_exists="Template.exists Template.alias_exists",
        template_is_built=(
            "Template.build Template.from_base_image TemplateBuilder.run_cmd "
            "TemplateBuilder.set_envs TemplateBuilder.set_workdir"
        ),
        template_is_built_by_steps_of_every_kind=(
            "TemplateBuilder.make_dir TemplateBuilder.rename TemplateBuilder.remove "
            "TemplateBuilder.make_symlink TemplateBuilder.git_clone"
        ),
        template_is_tagged=(
            "Template.get_tags Template.assign_tags Template.remove_tags Template.from_dockerfile "
            "Template.to_dockerfile Template.to_json TemplateBuilder.set_ready_cmd"
        ),
        template_starts_a_server="TemplateBuilder.set_start_cmd",
        build_is_followed=(
            "Template.build_in_background Template.get_build_status Template.from_image "
            "Template.skip_cache"
        ),
        packages_are_installed=(
            "Template.from_template TemplateBuilder.skip_cache TemplateBuilder.pip_install "
            "TemplateBuilder.npm_install TemplateBuilder.apt_install"
        ),
        files_are_copied_into_a_template="TemplateBuilder.copy TemplateBuilder.copy_items",
        paused_and_resumed="Sandbox.pause",
        paused_by_its_old_name="Sandbox.beta_pause",
        copied_by_a_snapshot=(
            "Sandbox.create_snapshot Sandbox.list_snapshots Sandbox.delete_snapshot"
        ),
        forked="Sandbox.fork",
        measured="Sandbox.get_metrics",
        port_has_a_host="Sandbox.get_host",
        network_rules_are_changed="Sandbox.update_network",
        file_by_a_signed_address="Sandbox.download_url Sandbox.upload_url",
        command_in_the_foreground="Sandbox.commands.run",
        command_in_the_background="Sandbox.commands.list",
        command_reads_stdin="Sandbox.commands.send_stdin",
        command_stdin_ends="Sandbox.commands.close_stdin",
        command_takes_a_stream_of_input="Sandbox.commands.stream_input",
        command_is_killed="Sandbox.commands.kill",
        command_is_connected_to="Sandbox.commands.connect",
        terminal="Sandbox.pty.create Sandbox.pty.send_stdin Sandbox.pty.resize Sandbox.pty.kill",
        terminal_is_connected_to="Sandbox.pty.connect",
        terminal_takes_a_stream_of_input="Sandbox.pty.stream_input",
        file_of_text="Sandbox.files.read Sandbox.files.write",
        files_many_at_once="Sandbox.files.write_files",
        files_are_listed="Sandbox.files.list",
        file_is_described="Sandbox.files.get_info",
        file_is_renamed="Sandbox.files.rename",
        file_is_removed="Sandbox.files.remove Sandbox.files.exists",
        folder_is_made="Sandbox.files.make_dir",
        folder_is_watched="Sandbox.files.watch_dir",
        git_changes="Sandbox.git.status Sandbox.git.restore Sandbox.git.add Sandbox.git.reset",
        git_branches=(
            "Sandbox.git.create_branch Sandbox.git.checkout_branch Sandbox.git.branches "
            "Sandbox.git.delete_branch"
        ),
        git_remotes=(
            "Sandbox.git.init Sandbox.git.remote_add Sandbox.git.remote_get Sandbox.git.push "
            "Sandbox.git.clone Sandbox.git.pull Sandbox.git.commit"
        ),
        git_settings=(
            "Sandbox.git.set_config Sandbox.git.get_config Sandbox.git.dangerously_authenticate"
        ),
        git_has_an_author="Sandbox.git.configure_user",
        code_has_a_value_and_output="Sandbox.run_code",
        contexts=(
            "Sandbox.create_code_context Sandbox.list_code_contexts Sandbox.remove_code_context "
            "Sandbox.restart_code_context"
        ),
    ),
    **_refused("the file is root's, and nobody is root", "mcp_token_is_refused",
               "Sandbox.get_mcp_token"),
    **_refused(VOLUMES, "volumes_are_missing",
               "Volume.create Volume.connect Volume.destroy Volume.get_info Volume.list "
               "Volume.exists Volume.make_dir Volume.read_file Volume.remove "
               "Volume.update_metadata Volume.write_file"),
    **_refused(SECRETS, "secrets_are_missing",
               "Secret.create Secret.destroy Secret.exists Secret.get_info Secret.list "
               "Secret.update"),
    **_plain(
        "makes no request; its server is not there",
        "Sandbox.get_mcp_url Sandbox.mcp_port Sandbox.default_mcp_template",
    ),
    **_one("works, unless root is set last", "template_names_a_user_and_its_sandboxes_are_listed",
           "TemplateBuilder.set_user"),
    **_one("fails unless a step has installed bun", "build_is_followed",
           "TemplateBuilder.bun_install"),
    **_one("works with an image that the operator has named; others are refused",
           "image_that_is_unknown",
           "Template.from_debian_image Template.from_ubuntu_image Template.from_python_image "
           "Template.from_node_image Template.from_bun_image"),
    **_one("works with an image that the operator has named; others are refused",
           "image_of_a_new_version_that_is_unknown",
           "Template.from_alpine_image Template.from_arch_image Template.from_fedora_image"),
    **_refused("no registry is used; the operator names images", "registries_are_refused",
               "Template.from_aws_registry Template.from_gcp_registry"),
    **_refused("their template is not here", "templates_of_their_own_are_missing",
               "TemplateBuilder.add_mcp_server TemplateBuilder.beta_dev_container_prebuild "
               "TemplateBuilder.beta_set_dev_container_start"),
    **_plain(
        "makes no request",
        "Sandbox.commands Sandbox.files Sandbox.pty Sandbox.git Sandbox.sandbox_id "
        "Sandbox.sandbox_domain Sandbox.traffic_access_token Sandbox.envd_api_url "
        "Sandbox.envd_direct_url Sandbox.default_template Sandbox.default_sandbox_timeout "
        "Sandbox.connection_config Sandbox.connection_config.envd_port "
        "Sandbox.connection_config.get_api_params Sandbox.connection_config.get_host "
        "Sandbox.connection_config.get_request_timeout "
        "Sandbox.connection_config.get_sandbox_direct_url "
        "Sandbox.connection_config.get_sandbox_url Sandbox.connection_config.sandbox_headers "
        "Sandbox.connection_config.set_integration Volume.name Volume.token Volume.volume_id "
        "Secret.fill Secret.iam_token",
    ),
}  # fmt: skip


def table() -> str:
    """Return the table as the page has it."""
    return "".join(_rows())


def _rows() -> Iterator[str]:
    yield "| method | what becomes of it | case |\n|---|---|---|\n"
    for name, line in sorted(LINES.items()):
        yield f"| `{name}` | {line.what} | {f'`{line.case}`' if line.case else ''} |\n"


def versions() -> str:
    """Return the table of what works in each version of `e2b`, as the page has it."""
    return "".join(_by_version())


def _by_version() -> Iterator[str]:
    targets = [each for each in reversed(TARGETS) if each.package == "e2b" and each.form == "sync"]
    names = [each.version.removesuffix(".*") for each in targets]
    yield f"| case | {' | '.join(names)} |\n|---{'|---' * len(names)}|\n"
    for case in sorted(SINCE, key=lambda each: (VERSIONS.index(SINCE[each]), each)):
        marks = ["lacks" if each.lacks(case) else "passes" for each in targets]
        yield f"| `{case}` | {' | '.join(marks)} |\n"
    others = len(targets[0].cases) - len(SINCE)
    yield f"| each of the other {others} | {' | '.join(['passes'] * len(targets))} |\n"


TABLES = {"table": table, "versions": versions}


def shown(page: str, name: str) -> str:
    """Return a table that a page has."""
    begin, end = MARKS[name]
    return page.partition(begin)[2].partition(end)[0]


if __name__ == "__main__":
    text = PAGE.read_text()
    for each, made in TABLES.items():
        begin, end = MARKS[each]
        text = text.replace(begin + shown(text, each) + end, begin + made() + end)
    PAGE.write_text(text)
