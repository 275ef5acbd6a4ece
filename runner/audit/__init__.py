"""The audit log: append-only, one hash chain for each tenant, sealed from outside the database.

    events ──→ audit_events ──┬─→ export   (API)       NDJSON, whose last line is a checkpoint
    (in the transaction of    ├─→ checkpoints (worker) "record n had this hash", signed
     what is recorded)        └─→ forward  (worker)    webhooks and syslog, at least once

* `events` writes a record in the same transaction as the change that it records. The database
  computes the chain under a lock of the tenant's head (see `store/migrations`), so concurrent
  writers cannot fork it. `chain` verifies a log by arithmetic alone, and trusts nothing else.
* `checkpoints` signs how far a chain has got, with the worker's key; the API, to which clients
  connect, has no key. Before the worker signs, it verifies what was added, so that it never seals a
  rewritten log.
* `export` writes a log to a file, and `offline` verifies that file with nothing but a public key.
* `forward` delivers each chain in order to each sink, from a stored cursor. It connects only to
  addresses that a guard permits (`outbound`), and reads only the status of an answer.

    events       who did what to which resource; writes it
    chain        arithmetic of a chain
    checkpoints  how far a chain had got, signed
    memory       what this worker has sealed, kept outside the database
    pinned       receipts, which name a place in the chain
    export       a log as a file
    offline      verification of such a file by itself
    forward      every chain to every sink, in order
    sinks        the configured sinks
    delivery     what is delivered, and how that fails
    webhook      deliveries by HTTPS
    syslog       deliveries by syslog
    outbound     the addresses to which records may be delivered
"""
