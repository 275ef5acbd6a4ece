"""Layers of the host behind a sandbox's own controls, and what to do if one hides a proof.

If a probe is stopped even without its control, the host may have stopped it: by a policy of
AppArmor, by the kernel's lockdown, by a setting. If Docker can lower that layer for a container,
the probe is tried once more without it. Otherwise, the check counts as held by that layer, not as
broken.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.verify.controls import Change, security_option

_LOADS = frozenset(f"syscalls.{name}" for name in ("init_module", "finit_module", "delete_module"))
_KEXEC = frozenset({"syscalls.kexec_load", "syscalls.kexec_file_load"})
_NAMESPACES = {
    "user": "user", "mount": "mnt", "network": "net", "pid": "pid", "ipc": "ipc", "uts": "uts",
    "cgroup": "cgroup", "time": "time",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the host. `lower` takes it away from a container, if Docker can do that.

    `holds` has the ids of the checks that it can hide; it is empty if it could hide any.
    """

    title: str
    lower: Change | None = None
    holds: Collection[str] = ()

    def may_hold(self, check: str) -> bool:
        """Return whether this layer may be what stops a check's probe."""
        return not self.holds or check in self.holds


APPARMOR = Layer("AppArmor (docker-default)", security_option("apparmor", "unconfined"))
SELINUX = Layer("SELinux", security_option("label", "disable"))

_POLICIES = {"name=apparmor": APPARMOR, "name=selinux": SELINUX}

# These layers refuse even root with every capability: kernel_lockdown(7), sysctl documentation
# (admin-guide/sysctl/kernel.rst), namespaces(7).
_SETTINGS: tuple[tuple[str, Callable[[str], bool], Layer], ...] = (
    ("sys/kernel/security/lockdown", lambda text: "[none]" not in text,
     Layer("the kernel's lockdown", holds=frozenset({"syscalls.kexec_load"}))),
    ("sys/kernel/security/lockdown", lambda text: "[confidentiality]" in text,
     Layer("the kernel's lockdown (confidentiality)", holds=frozenset({"proc.masked.proc-kcore"}))),
    ("proc/sys/kernel/kexec_load_disabled", lambda text: text != "0",
     Layer("kernel.kexec_load_disabled", holds=_KEXEC)),
    ("proc/sys/kernel/modules_disabled", lambda text: text != "0",
     Layer("kernel.modules_disabled", holds=_LOADS)),
    *(
        (f"proc/sys/user/max_{kernel}_namespaces", lambda text: text == "0",
         Layer(f"user.max_{kernel}_namespaces", holds=frozenset(
             {f"syscalls.unshare.{name}", f"syscalls.clone.{name}"})))
        for name, kernel in _NAMESPACES.items()
    ),
)  # fmt: skip


def layers(docker: Mapping[str, Any], root: Path = Path("/")) -> tuple[Layer, ...]:
    """Return the layers that exist on this host, by `docker info` and the kernel's settings."""
    named = {str(option).partition(",")[0] for option in docker.get("SecurityOptions") or ()}
    policies = [layer for name, layer in _POLICIES.items() if name in named]
    settings = [
        layer
        for path, stands, layer in _SETTINGS
        if (root / path).is_file() and stands((root / path).read_text().strip())
    ]
    return (*policies, *settings)
