"""Theory of operation: what a command needs, against what the profile in force allows.

    observer   a program for the inside of a sandbox: traces a command, writes down its calls
    learn      runs it there: the same sandbox as ever, but ptrace passes
    propose    a pure function: profile in force and calls → the smallest profile, and its dangers
    allowlist  the same for egress: the hosts that were reached
    dangerous  calls no profile should allow, with the reason

An operator's tool: the command is the operator's own, and nothing here runs for a tenant.
"""
