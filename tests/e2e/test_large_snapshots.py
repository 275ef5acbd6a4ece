"""A large snapshot passes through the API and the worker: neither gathers it."""

from pathlib import Path

from tests.support.deployment import Deployment

MIB = 2**20
SIZE = 100 * MIB
MOST = 48 * MIB
"""The most that a process may grow meanwhile: two parts of 5 MiB, and what each layer holds."""


def test_a_large_snapshot_is_not_gathered_in_memory(shared: Deployment) -> None:
    """The peak of either process grows by far less than what passes; a sandbox gets all of it."""
    api = shared.client("large-snapshots")
    limits = {"disk_mb": 192, "memory_mb": 512}
    with api.sandboxes.create(size="small", limits=limits, timeout_s=None) as source:
        source.files.write("small", b"warm")
        api.snapshots.delete(source.snapshot().id)
        made = source.run("head -c 100M /dev/urandom > large; sha256sum < large")
        pids = {"api": shared.stack.api.pid, "worker": shared.worker.pid}
        before = {name: peak_from_now_on(pid) for name, pid in pids.items()}
        kept = source.snapshot()
        grown = {name: peak(pid) - before[name] for name, pid in pids.items()}
        assert kept.size_bytes > SIZE
        assert all(each < MOST for each in grown.values()), grown
        before = {name: peak_from_now_on(pid) for name, pid in pids.items()}
        with api.sandboxes.create(snapshot=kept.id, timeout_s=None) as again:
            grown = {name: peak(pid) - before[name] for name, pid in pids.items()}
            assert again.run("sha256sum < large").stdout.raw == made.stdout.raw
        assert all(each < MOST for each in grown.values()), grown
        api.snapshots.delete(kept.id)


def test_a_process_that_gathers_it_is_found() -> None:
    """The control: the same measure sees this process hold as much."""
    before = peak_from_now_on("self")
    held = b"x" * SIZE
    assert peak("self") - before > MOST, len(held)


def peak_from_now_on(pid: int | str) -> int:
    """Forget the most memory that a process ever held (proc_pid_clear_refs(5)); return it anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak(pid)


def peak(pid: int | str) -> int:
    """Return the most memory that a process has held, in bytes (proc_pid_status(5), `VmHWM`)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (each for each in lines if each.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
