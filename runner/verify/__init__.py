"""The security checks: probes that must fail, each shown able to succeed.

Every check names the one control that stops it. It is tried twice: with all controls, where it
must be stopped, and with that one control taken away, where it must succeed; a check that is
stopped both times proves nothing and counts as broken. `tests/security` runs them all,
`runner verify` runs them on an operator's own deployment.
"""
