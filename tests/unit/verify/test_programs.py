"""Many probes in one program: each in a fork, told apart, and broken off by none unseen."""

import subprocess
import sys

from runner.verify.programs import ProbeOutput, Together, alone

HELD = "held('EPERM')"
SAYS_HELD = b'{"breached": false, "saw": "EPERM", "absent": false}'


def ran(*codes: str, most_s: float = 20.0) -> list[ProbeOutput]:
    """Return what probes said, tried together by this host's own Python."""
    together = Together.of(codes, most_s)
    done = subprocess.run(
        [sys.executable, "-I", "-c", together.program],
        stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    return together.said(done.stdout)


def test_each_probe_has_its_own_output_and_end() -> None:
    """An exit code, a signal, an exception, and a word behind other output."""
    found = ran(
        HELD,
        "print('first'); breached()",
        "os._exit(7)",
        "os.kill(os.getpid(), 31)",
        "1/0",
        "print('nothing to say')",
    )
    assert [each.code for each in found] == [0, 0, 7, -31, 1, 0]
    assert found[0].stdout == SAYS_HELD
    assert found[1].stdout.startswith(b"first\n")
    assert b'"breached": true' in found[1].stdout
    assert [each.stdout for each in found[2:]] == [b"", b"", b"", b"nothing to say"]


def test_what_a_probe_changes_in_its_process_is_not_seen_by_the_next() -> None:
    found = ran(
        "name = None; os.umask(0o777); os.chdir('/'); held = breached; held()",
        "held(f'{name(1)} {os.umask(0)}')",
    )
    assert b"EPERM" in found[1].stdout
    assert str(0o777).encode() not in found[1].stdout


def test_a_probe_can_lead_a_session_as_a_program_can() -> None:
    (found,) = ran("os.setsid(); held()")
    assert found.code == 0


def test_a_probe_that_takes_too_long_ends_the_program() -> None:
    """Neither it nor what comes behind it counts as tried."""
    assert [each.code for each in ran(HELD, "import time; time.sleep(60)", HELD, most_s=0.3)] == [0]


def test_a_probe_that_ends_the_program_is_missing() -> None:
    assert [each.code for each in ran(HELD, "os.kill(os.getppid(), 9); held()", HELD)] == [0]


def test_a_probe_cannot_say_that_another_one_was_tried() -> None:
    """It does not know the mark, which is another one each time."""
    (found,) = ran("print('0' * 16 + '0'); held()")
    assert found.stdout.endswith(SAYS_HELD.replace(b"EPERM", b"refused"))
    assert Together.of([HELD], 1).mark != Together.of([HELD], 1).mark


def test_a_probe_by_itself_says_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", alone(HELD)], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.strip() == SAYS_HELD
