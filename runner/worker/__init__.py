"""The worker: the one process that reaches Docker, and the recipe of an execution.

One asyncio loop does everything; RQ's consumers are threads that wait for rings and hand over to
it. `consumer` answers a ring, `execute` is the recipe (claim, launch, run, collect, record,
dispose), `start` is when a program's start goes on record, `lease` keeps the attempt ours, `reaper`
settles what died, `finish` writes results, `sandboxes` is the seam at which `pool` and `reuse`
stand, `service` starts and drains all of it.

It distrusts Redis (a ring is a hint), the sandbox (all its bytes) and itself (every write is
fenced by the attempt's lease).
"""
