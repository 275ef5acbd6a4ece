"""Theory of operation: one hardened container for one execution, driven over one unix socket.

Runs in the node's process, the only one that reaches Docker; this package is the only one that
imports `docker`.

    reap     what an earlier process left behind
    drive    programs without an execution: upload, run, collect, all in memory
    launch   order → container → its supervisor's one connection
    guest    the node's end of that connection: upload, run, collect, how it ended
    engine   Docker as far as it is needed, and what containers are made of
    observe  what the kernel says of a sandbox, and what holds it to its limits

Distrusts everything that comes through the connection. Whether a program was killed, when, and for
what is decided from the node's clock, the kernel's counters and Docker, not from a report.
"""
