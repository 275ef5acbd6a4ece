"""Use cases for sandboxes that live and for what is in them, without HTTP, RQ and Docker.

A use case takes a caller, whose permission has been checked, and plain values. It raises errors of
`runner.words.errors`. The row in PostgreSQL is the truth about a sandbox; its node is reached
through the node's door, with a grant that is made here after the caller's right is checked.

    living      make, read, list, change, pause, resume and kill a sandbox
    starting    have a node make the sandbox of a stored row
    startup     begin what a template names, and wait until it is ready
    use         processes and files in a running sandbox
    ports       open ports for callers without a key, and who may reach one
    addresses   signed addresses by which others read or write one file
    snapshots   keep what is in a sandbox's workspace, and put it into another
    keeping     how that is kept, also by a node that does so on its own
    measured    an archive's size and hash, on its way into the object store
    copies      make a sandbox with files: a snapshot's, or those of a running sandbox
    foreground  start a process and wait for it
    watchers    watched folders whose changes wait until somebody asks for them
    place       which sandboxes run, remembered for a moment
    egress      other egress rules for one that lives
    events      what happens to a sandbox and in it, as it happens
    explain     why a sandbox started late, paused or ended
    meanings    what the reasons of ends mean
    receipt     what a node has signed of an end
    order       the sandbox that a caller orders by names, and the request that it resolves to
    catalogue   what this deployment offers, and how much of that a tenant may have
"""
