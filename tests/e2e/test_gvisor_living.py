"""Code contexts and watched folders of a living sandbox behind gVisor's kernel."""

from collections.abc import Iterator

import pytest

from agent_runner import Client, Sandbox
from tests.support.deployment import Deployment


@pytest.fixture(scope="module")
def api(shared: Deployment) -> Client:
    """Return a client of a tenant of this module's own."""
    return shared.client("gvisor-living")


@pytest.fixture(scope="module")
def sandbox(api: Client) -> Iterator[Sandbox]:
    """Return a sandbox behind gVisor."""
    with api.sandboxes.create(isolation="gvisor", size="small", timeout_s=None) as made:
        assert "4.4.0" in made.run("cat /proc/version").stdout.text, "the kernel is not gVisor's"
        yield made


CODE = {
    "python": ("x = 6", "print('said'); x * 7", "while True: pass"),
    "bash": ("x=6", "echo said; echo $((x * 7))", "while true; do :; done"),
    "javascript": ("const x = 6", "console.log('said'); await x * 7", "while (true) {}"),
}
"""By language: code that sets a variable, code that reads it, and code that never ends."""


@pytest.mark.parametrize("language", CODE)
def test_a_context_keeps_variables_is_interrupted_and_outlives_a_pause(
    language: str, sandbox: Sandbox
) -> None:
    sets, reads, endless = CODE[language]
    with sandbox.contexts.create(language) as context:
        assert context.run(sets).ok
        for _ in range(2):
            read = context.run(reads)
            assert (read.ok, "said" in read.stdout) == (True, True)
            assert "42" in f"{read.text}{read.stdout}"
            sandbox.pause()
            sandbox.resume()
        interrupted = context.run(endless, timeout_s=1)
        assert interrupted.timed_out
        again = context.run(reads) if language != "javascript" else context.run("6 * 7")
        assert "42" in f"{again.text}{again.stdout}"
        context.restart()
        assert not context.run(reads).text or language == "bash"


def test_a_figure_and_a_data_frame_are_shown(sandbox: Sandbox) -> None:
    shown = sandbox.run_code(
        "import matplotlib.pyplot as plt, pandas as pd\n"
        "plt.plot([1, 2], [3, 4]); plt.show()\npd.DataFrame({'a': [1, 2]})"
    )
    assert any("image/png" in each.data for each in shown.results), shown
    assert any("text/html" in each.data for each in shown.results)


def test_a_watch_tells_of_each_kind_of_change(sandbox: Sandbox) -> None:
    """It also tells of changes below a folder that was made after it began."""
    sandbox.files.make_folder("watched")
    wanted = {
        ("made", "one"), ("written", "one"), ("attributes", "one"), ("made", "below"),
        ("written", "below/two"), ("moved_from", "one"), ("moved_to", "three"),
        ("removed", "three"), ("moved_to", "four"),
    }  # fmt: skip
    told: set[tuple[str, str]] = set()
    with sandbox.files.watch("watched") as watch:
        script = (
            "cd watched; echo a > one; sleep 0.2; echo b >> one; chmod 600 one; mkdir below;"
            " sleep 0.5; echo c > below/two; mv one three; rm three"
        )
        assert sandbox.run(script).exit_code == 0
        sandbox.files.write("watched/four", b"d")
        for changes in watch:
            told |= {
                (change["kind"], change["path"].rpartition("watched/")[2])
                for change in changes.changes
            }
            if wanted <= told:
                break
    assert wanted <= told


def test_files_are_listed_and_looked_at(sandbox: Sandbox) -> None:
    sandbox.run("mkdir -p looked; echo hello > looked/a; ln -s a looked/b")
    listed, _ = sandbox.files.list("looked")
    kinds = {each.path.rpartition("/")[2]: each.kind for each in listed}
    assert kinds == {"a": "file", "b": "link"}
    assert sandbox.files.stat("looked/a").size == 6
    python = """python3 -c 'import os; print(os.stat("looked/a").st_size)'"""
    for shown in ("find looked -name a -printf %s", "wc -c < looked/a", python):
        assert sandbox.run(shown).stdout.text.strip() == "6", shown
