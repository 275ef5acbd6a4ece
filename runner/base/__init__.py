"""What every process needs, whatever it does: settings, logs, keys, tasks, what masks and confines.

Knows tenants and executions only by the words; reaches no other part of a deployment.

    settings   what the operator configures, from the environment
    recipe     what a sandbox image holds, as its file says
    forms      the forms that settings must have
    rates      how often somebody may ask, as the operator sets it
    telemetry  structured logs, without secrets
    listening  the socket that the API listens on
    health     what a node says of itself, for whoever looks after its process
    duties     work that goes on for as long as its process does, supervised
    locks      files that a process locks to say that it runs
    sockets    connections accepted, none lost by a cancellation
    tasks      what asyncio lacks: work that is not interrupted, work beside other work
    signing    Ed25519 keys of the deployment, and canonical documents signed with them
    masking    finding secrets' values in what a program says, in whatever form
    seccomp    allowlists of system calls, compiled
"""
