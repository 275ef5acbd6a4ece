"""Bytes at rest: PostgreSQL for truth, a folder or bucket for artifacts.

The API and the worker import it, each with its own login role. Only `db` opens connections and sets
the tenant. Row-level security does the rest: a query that forgets its WHERE returns nothing of
another tenant. SQL is in `queries/*.sql`.

    db               connections, and the tenant of each transaction
    transaction      one transaction: named queries in, rows out
    connection       one connection, closed if its state is unknown
    transport        how a login reaches PostgreSQL, for `runner doctor`
    migrations       the schema
    objects          the bytes of objects, in a folder or bucket
    ledger           which objects exist, and how much space they take
    unfinished       bytes left behind by writers that died
    snapshots        the files of sandboxes, kept as objects
    templates        templates, and what their builds wrote
    public_templates  those of them that are everybody's
    tenants          tenants and their terms
    projects         groups of executions
    members          members and invitations
    users            users and their sessions
    keys             API keys
    operators        operators' keys and sessions
    nodes            nodes: what each tells of itself, and what the operator wants of it
    node_invitations  one-time tokens by which hosts join, as hashes
    rights           what was made with a right, and how it ends
    executions       executions as a client sees them
    idempotency      what an idempotency key was first used for
    sandboxes        sandboxes that live, as a client sees them
    ports            opened ports of sandboxes that live
    holders          which keys may hold tokens of sandboxes
    residents        sandboxes that live, as their node writes them
    scheduling       which execution runs next
    attempts         attempts, as their worker writes them
    receipts         receipts, as they were signed
    files            a tenant's files
    secrets          sealed secrets
    egress_policies  named egress policies
    quotas           quotas, and how much of them a tenant uses
    usage            what was used
    retention        what is removed after its time
"""
