"""Code contexts and watched folders of a living sandbox behind gVisor's kernel."""

import threading
import time
from collections.abc import Iterator

import pytest

from agent_runner import Client, Sandbox
from tests.support.deployment import Deployment, eventually


@pytest.fixture(scope="module")
def api(shared: Deployment) -> Client:
    """Return a client of a tenant of this module's own."""
    return shared.client("gvisor-living")


@pytest.fixture(scope="module")
def sandbox(api: Client) -> Iterator[Sandbox]:
    """Return a sandbox behind gVisor."""
    with api.sandboxes.create(isolation="gvisor", size="small", timeout_s=None) as made:
        assert "gVisor" in made.run("cat /proc/version; dmesg 2>&1 || true").stdout.text
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
    """Also below a folder that was made after it began."""
    sandbox.files.mkdir("watched")
    with sandbox.files.watch("watched") as watch:
        told: list[tuple[str, str]] = []
        listening = threading.Thread(
            target=lambda: told.extend(
                (change["kind"], change["path"].rpartition("watched/")[2])
                for changes in watch
                for change in changes.changes
            ),
            daemon=True,
        )
        listening.start()
        script = (
            "cd watched; echo a > one; sleep 0.2; echo b >> one; chmod 600 one; mkdir below;"
            " sleep 0.5; echo c > below/two; mv one three; rm three"
        )
        assert sandbox.run(script).exit_code == 0
        sandbox.files.write("watched/four", b"d")
        wanted = {
            ("made", "one"), ("written", "one"), ("attributes", "one"), ("made", "below"),
            ("written", "below/two"), ("moved_from", "one"), ("moved_to", "three"),
            ("removed", "three"),
        }  # fmt: skip
        eventually(lambda: wanted <= set(told) or print(wanted - set(told)))
        eventually(lambda: any(path == "four" for _, path in told))
        time.sleep(0)


def test_files_are_listed_and_looked_at(sandbox: Sandbox) -> None:
    sandbox.run("mkdir -p looked; echo hello > looked/a; ln -s a looked/b")
    listed = {each.path.rpartition("/")[2]: each for each in sandbox.files.list("looked")}
    assert {name: each.kind for name, each in listed.items()} == {"a": "file", "b": "link"}
    assert sandbox.files.stat("looked/a").size == 6
    said = sandbox.run("stat -c %s looked/a; ls -l looked; python3 -c 'import os; os.stat(\"looked/a\")'")
    print(said)
