"""The security checks: probes that must fail, and of which each is shown to be able to succeed.

Every check names the one control that stops it. It is tried twice: with all controls, when it must
be stopped, and without that one control, when it must succeed. A check that is stopped both times
proves nothing and counts as broken. `tests/security` runs all checks; `runner verify` runs them on
an operator's own deployment.

    check         what a check is, and what trying it shows
    trial         checks that are run from outside a sandbox
    checks        every check, by group
    controls      the controls that checks test, and how to take each away
    build_guest   the sandbox of a template's build, as checks see it
    guests        how an attack comes into a sandbox: as an execution, or where one lives
    bench         sandboxes in which to try attacks
    programs      programs that try one probe, or many
    suite         tries every check twice
    report        the results
    layers        layers of the host that hide a proof
    build         what a step of a template's build may do, and why
    gvisor        where gVisor's kernel answers differently
    outside       a server to attack, behind the egress proxy
    speech        what a hostile client says to that proxy
    forged        what a hostile supervisor says
    surroundings  what probes look for on the host
"""
