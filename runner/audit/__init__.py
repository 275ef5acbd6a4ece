"""What happened, append-only and hash-chained for each tenant, sealed from outside the database.

    events ──→ audit_events ──┬─→ export   (API)     NDJSON, whose last line is a checkpoint
    (in the transaction of    ├─→ checkpoints (worker) "record n had this hash", signed
     what it tells of)        └─→ forward  (worker)  webhooks and syslog, at least once

* `events` writes a record in the same transaction as what it tells of; the database computes the
  chain under a lock of the tenant's head (see `store/migrations`), so concurrent writers cannot
  fork it. `chain` verifies a log, trusting nothing but its arithmetic.
* `checkpoints` signs where a chain stands, with the worker's key: what listens for clients has
  none. Before it signs it verifies what was added, so that a rewritten log is never sealed.
* `export` writes a log as a file, and `offline` verifies that file with a public key alone.
* `forward` delivers each chain in order to each sink from a stored cursor. What it connects to
  passes a guard of addresses (`outbound`); what servers answer is not read beyond the status.

    events       who did what to which resource; writes it
    chain        arithmetic of a chain
    checkpoints  where a chain stood, signed
    memory       what this worker has sealed, remembered outside the database
    pinned       receipts, which pin the chain they were signed in
    export       a log as a file
    offline      verification of that file alone
    forward      every chain to every sink, in order
    sinks        which sinks there are, as configured
    delivery     what is delivered, and how that fails
    webhook      deliveries by HTTPS
    syslog       deliveries by syslog
    outbound     which addresses are delivered to
"""
