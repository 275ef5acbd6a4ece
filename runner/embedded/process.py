"""Child processes that cannot outlive their parent, and the user they run as."""

import ctypes
import os
import pwd
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.words.errors import SetupError

SERVICE_USER = "agent-runner"
PR_SET_PDEATHSIG = 1
STOP_AFTER_S = 20.0

_libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent's thread ends (prctl(2))."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class ServiceUser:
    """The user that runs the services, as PostgreSQL refuses root. None means the current user."""

    uid: int | None
    gid: int | None

    def own(self, path: Path) -> None:
        """Make a folder that only the services can use."""
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def may_pass(self, path: Path) -> bool:
        """Return whether the user can reach a path: every folder above it lets others through."""
        return self.uid is None or all(above.stat().st_mode & 0o001 for above in path.parents)


def service_user() -> ServiceUser:
    """Return the user to run services as. Raises SetupError if root has none to give."""
    if os.geteuid() != 0:
        return ServiceUser(None, None)
    try:
        entry = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        raise SetupError(
            f"the embedded services need the user {SERVICE_USER}, PostgreSQL refuses root: "
            f"`useradd --system --no-create-home --shell /usr/sbin/nologin {SERVICE_USER}`"
        ) from None
    return ServiceUser(entry.pw_uid, entry.pw_gid)


class ServiceProcess:
    """One service that can be started, stopped, killed, and started again."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        user: ServiceUser,
        log: Path,
        environment: Mapping[str, str],
        patience: int,
    ) -> None:
        self._argv = list(argv)
        self._user = user
        self._log = log
        self._stop_after_s = STOP_AFTER_S * patience
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id. Raises RuntimeError if it does not run."""
        if self._process is None:
            raise RuntimeError(f"{self._argv[0]} does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it; its output goes to its log."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - arguments are ours
                self._argv,
                env=self._environment,
                user=self._user.uid,
                group=self._user.gid,
                extra_groups=[] if self._user.uid is not None else None,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the parent, which stops its children in order.
                process_group=0,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl, no locks taken
            )

    def running(self) -> bool:
        """Return whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def check(self) -> None:
        """Raise SetupError with the end of its log if it has ended."""
        if not self.running():
            raise SetupError(f"{self._argv[0]} ended at once:\n{self.last_words()}")

    def stop(self, with_signal: signal.Signals) -> None:
        """End it and wait; send SIGKILL if it does not end."""
        if self._process is None:
            return
        self._process.send_signal(with_signal)
        try:
            self._process.wait(self._stop_after_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def last_words(self) -> str:
        """Return the end of its log."""
        return self._log.read_text("utf-8", "replace")[-2000:]
