"""Every check there is, by group.

privileges   what a program is, and could become
syscalls     dangerous system calls
files        files, devices, /proc and /sys
network      a sandbox without egress has none
resources    amounts and time
shared       what the kernel counts by user
output       what a program leaves behind
protocol     a hostile supervisor
egress       past the proxy by names, addresses and TLS
egress_http  past the proxy by HTTP and by amounts
queue        forged jobs
"""

from runner.verify.check import Check
from runner.verify.checks import (
    egress,
    egress_http,
    files,
    network,
    output,
    privileges,
    protocol,
    queue,
    resources,
    shared,
    syscalls,
)
from runner.verify.suite import checked


def every_check() -> tuple[Check, ...]:
    """Return all checks."""
    modules = (
        privileges,
        syscalls,
        files,
        network,
        resources,
        shared,
        output,
        protocol,
        egress,
        egress_http,
        queue,
    )
    return checked(check for module in modules for check in module.CHECKS)
