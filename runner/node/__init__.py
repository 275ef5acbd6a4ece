"""The node: the one process that reaches Docker, and the recipe of an execution.

One asyncio loop does everything; RQ's consumers are threads that wait for rings and hand over to
it.

    service     starts and drains all of it
    named       reads what settings name, before anything is started
    alone       keeps a second worker from the same folders
    awaiting    waits at the start until Docker answers
    reaper      settles what died, and removes strays
    residents   sandboxes that live, and the door where the API knocks
    contexts    code interpreters in sandboxes that live
    runs        one execution, from the ring to its end on record
    stock       where runs get their sandboxes
    traffic     how busy the node is, so that what can wait does
    breaker     whether this node can start sandboxes; while it cannot it claims nothing
    membership  registers this node, and says that it lives
    gate        whether the node takes anything new
    starvation  tells a host that is short of something for now from a defect of ours
    measures    what the node counts, for Prometheus
    retention   removes what is kept no longer

It distrusts Redis (a ring is a hint), the sandbox (all its bytes) and itself (every write is
fenced by the attempt's lease).
"""
