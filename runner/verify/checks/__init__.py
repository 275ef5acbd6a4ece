"""Every check there is, by group."""

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
