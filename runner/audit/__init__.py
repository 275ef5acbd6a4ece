"""What happened, append-only and hash-chained for each tenant.

`events` writes a record in the same transaction as what it tells of; the database computes the
chain under a lock of the tenant's head (see `store/migrations`), so concurrent writers cannot
fork it. `chain` verifies a log offline, trusting nothing but its arithmetic.
"""
