"""`runner profile`: list, show, check and learn, as an operator calls them."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runner.base.settings import Settings


def runner(state_dir: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with a state folder of its own."""
    return subprocess.run(
        [sys.executable, "-m", "runner", "profile", *arguments],
        env={**os.environ, "RUNNER_STATE_DIR": str(state_dir), "COLUMNS": "200", **settings},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_learn_prints_a_diff_and_writes_a_profile_that_compiles(tmp_path: Path) -> None:
    proposed = tmp_path / "mine.json"
    learnt = runner(tmp_path, "learn", "--write", str(proposed), "unshare", "-U", "id", "-u")
    assert learnt.returncode == 0, learnt.stderr
    assert learnt.stdout.startswith("--- a/seccomp/default.json\n+++ b/seccomp/default.json\n")
    assert '+      "comment": "Needed by: unshare -U id -u",\n' in learnt.stdout
    assert '-        "inotify_init1",\n' in learnt.stdout
    assert "warning: unshare: it makes namespaces" in learnt.stderr
    checked = runner(tmp_path, "check", str(proposed))
    assert checked.returncode == 0
    assert "warning: unshare" in checked.stderr
    assert list(tmp_path.glob("learn-*")) == []


def test_learn_leaves_nothing_after_a_time_out(tmp_path: Path) -> None:
    """It says that it did not see the end of the command."""
    (tmp_path / "limits").mkdir()
    profiles = Settings().profiles_path
    (tmp_path / "seccomp").symlink_to(profiles / "seccomp")
    text = (profiles / "limits" / "small.toml").read_text()
    (tmp_path / "limits" / "small.toml").write_text(text.replace("= 30", "= 1"))
    learnt = runner(
        tmp_path, "learn", "--size", "small", "--", "sleep", "60", RUNNER_PROFILES_DIR=str(tmp_path)
    )
    assert learnt.returncode == 1
    assert "not observed to its end" in learnt.stderr
    assert list(tmp_path.glob("learn-*")) == []


def test_show_gives_each_group_with_its_reason(tmp_path: Path) -> None:
    shown = runner(tmp_path, "show")
    assert shown.returncode == 0, shown.stderr
    assert "clone3" in shown.stdout
    assert "glibc then falls back to clone" in shown.stdout
    assert "180 system calls by name" in shown.stdout


def test_list_shows_the_operators_own_sizes_and_profiles(tmp_path: Path) -> None:
    profiles = Settings().profiles_path
    for folder in ("limits", "seccomp"):
        (tmp_path / folder).mkdir()
        for path in (profiles / folder).iterdir():
            (tmp_path / folder / path.name).write_text(path.read_text())
    small = (profiles / "limits" / "small.toml").read_text()
    (tmp_path / "limits" / "notebook.toml").write_text(small.replace("= 256 ", "= 384 "))
    listed = runner(tmp_path, "list", RUNNER_PROFILES_DIR=str(tmp_path))
    assert listed.returncode == 0, listed.stderr
    assert "notebook" in listed.stdout
    assert "384" in listed.stdout


def test_check_takes_the_name_that_show_takes(tmp_path: Path) -> None:
    """A file of that name in the current folder comes first."""
    checked = runner(tmp_path, "check", "egress")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "seccomp/egress.json: 82 system calls allowed" in checked.stdout
    missing = runner(tmp_path, "check", "no-such-profile")
    assert missing.returncode == 78
    assert "no-such-profile" in missing.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"defaultAction": "SCMP_ACT_ALLOW"}, "not valid"),
        (
            {
                "syscalls": [
                    {
                        "comment": "x",
                        "names": ["read"],
                        "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_ODD"}],
                    }
                ]
            },
            "does not compile",
        ),
    ],
    ids=["allows by default", "unknown comparison"],
)
def test_check_refuses_a_broken_profile_by_its_name(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    raw = json.loads((Settings().profiles_path / "seccomp" / "default.json").read_text())
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({**raw, **change}))
    checked = runner(tmp_path, "check", str(path))
    assert checked.returncode == 78
    assert "broken.json" in checked.stderr
    assert message in checked.stderr


def test_learn_proposes_the_smallest_allowlist_for_what_was_reached(tmp_path: Path) -> None:
    """Exact hosts replace a wildcard; refused requests are listed with the rule that they need."""
    tmp_path.chmod(0o755)
    profiles = shutil.copytree(Settings().profiles_path, tmp_path / "profiles")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as s:
        threading.Thread(target=s.serve_forever, daemon=True).start()
        (profiles / "egress" / "ceiling.toml").write_text(
            f'[[allow]]\nhost = "*.example.test"\nscheme = "http"\nport = {s.server_port}\n'
        )
        port = s.server_port
        learnt = runner(
            tmp_path / "state",
            *("learn", "--egress", f"http://*.example.test:{port}", "--", "bash", "-c"),
            f"curl -s http://a.example.test:{port}/x >/dev/null; curl -s http://b.test/; true",
            RUNNER_PROFILES_DIR=str(profiles),
            RUNNER_EGRESS_TRUSTED_NETWORKS='["127.0.0.0/8"]',
            RUNNER_EGRESS_HOSTS='{"a.example.test": "127.0.0.1"}',
        )
        s.shutdown()
    assert learnt.returncode == 0, learnt.stderr
    allowlist = learnt.stdout[learnt.stdout.index("--- a/egress") :]
    assert allowlist.splitlines()[3:] == [
        f"-http://*.example.test:{port}",
        f"+http://a.example.test:{port}",
    ]
    assert "refused: http://b.test" in learnt.stderr


def test_learn_refuses_a_rule_beyond_the_ceiling(tmp_path: Path) -> None:
    learnt = runner(tmp_path, "learn", "--egress", "tcp://example.test:22", "--", "true")
    assert learnt.returncode == 1
    assert "ceiling" in learnt.stderr
