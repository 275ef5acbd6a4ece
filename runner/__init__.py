"""Theory of operation: a pipeline of four processes, each with the least it needs.

    client ─HTTP→ api ─────────→ PostgreSQL   truth: executions, events, results, audit
                   │ ids only                 (row-level security, forced)
                   └─→ Redis / RQ ─→ worker   the doorbell: may be lost, repeated or forged
                                      │
                                      └─→ Docker: one hardened container for one execution
                                            └─ supervisor (PID 1) ⇄ worker, one unix socket
                                                 └─ the untrusted program

* **api** listens for clients. Logs in to PostgreSQL as a role that sees one tenant at a time and
  may not schedule. Never reaches Docker.
* **worker** is the only process that reaches Docker. It claims executions in PostgreSQL, runs
  each in a container of its own, and writes the result under a lease.
* **supervisor** runs inside the container as an unprivileged user. Every byte from it is
  untrusted input.
* **egress proxy** is the only way out of a sandbox: a child of the worker without rights, which
  knows each sandbox by a socket of its own and reaches what the execution's rules permit.

Folders are stages; imports point down this list and never up. The SDK, `sdk/python`, is a
distribution of its own, which knows the API by HTTP alone; of these, only `cli` imports it:

    cli                the command line
    verify             every attack of the catalogue, tried on this host
    embedded           private PostgreSQL and Redis, API and worker for one host
    api                HTTP in and out
    node               the worker: one execution as a recipe, and the stock of sandboxes
    receipts           what the worker signs of an execution
    executions         use cases: what is done to executions
    templates          use cases: what sandboxes are made from
    sandboxes          use cases: what is done to sandboxes that live, and in them
    fleet              use cases: the nodes, and which of them takes a sandbox
    backup             use cases: a whole deployment, copied and put back
    tenants            use cases: what is done to and in tenants
    auth · queue       who may what; the pipe between api and worker
    audit              what happened, hash-chained
    secrets            tenants' secrets, sealed and opened
    store              bytes at rest; the only place that sets the tenant
    profiles           seccomp profiles, learnt and judged
    sandbox            the only place that imports docker; every hardening flag
    egress             the proxy's process, and the worker's hold on it
    door               how the API reaches sandboxes that live, on their node
    network            names and addresses: what may be connected to
    protocol           what a sandbox's supervisor and its node say to each other
    quotas             sizes of sandboxes, and what a tier permits
    base               what every process needs: settings, logs, keys, tasks, masking, seccomp
    words              plain values and errors, which import nothing
"""

__version__ = "0.1.0"
