"""Compares what a command needs with what the profile in force allows.

    observer   a program for the inside of a sandbox: traces a command, writes down its calls
    learn      runs the observer in an ordinary sandbox, except that the filter permits ptrace
    propose    a pure function: profile in force and calls → the smallest profile, and its dangers
    allowlist  the same for egress: the hosts that the command reached
    dangerous  calls that no profile should allow, with the reason

This is an operator's tool: the command is the operator's own, and nothing here runs for a tenant.
"""
