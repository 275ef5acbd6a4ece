"""The security checks: probes that must fail, each shown able to succeed.

Every check names the one control that stops it. It is tried twice: with all controls, where it
must be stopped, and with that one control taken away, where it must succeed; a check that is
stopped both times proves nothing and counts as broken. `tests/security` runs them all,
`runner verify` runs them on an operator's own deployment.

    check         what a check is, and what trying it shows
    trial         checks that are played from outside
    checks        every check, by group
    controls      what checks lean on, and how each is taken away
    bench         sandboxes to try attacks in
    suite         tries every check twice
    report        what was found
    layers        walls of the host that hide a proof
    gvisor        where gVisor's kernel answers otherwise
    outside       a server to be reached, behind the egress proxy
    speech        what a hostile client says to that proxy
    forged        what a hostile supervisor says
    surroundings  what probes look for on the host
"""
