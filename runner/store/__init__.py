"""Bytes at rest: PostgreSQL for truth, a folder or bucket for artifacts.

Imported by the API and the worker, each with its own login role. `db` is the only place that
opens connections and the only one that sets the tenant; row-level security does the rest, so a
query that forgets its WHERE returns nothing of another tenant. SQL lives in `queries/*.sql`.

    db               connections, and the tenant of each transaction
    transaction      one transaction: named queries in, rows out
    connection       one connection, closed rather than in doubt
    migrations       the schema
    objects          objects' bytes, in a folder or bucket
    ledger           which objects there are, and their room
    unfinished       bytes that writers left which died
    tenants          tenants and their terms
    projects         groups of executions
    members          members and invitations
    users            users and their sessions
    keys             API keys
    operators        operators' keys
    rights           what is made with a right, and its end
    executions       executions as a client sees them
    scheduling       whose turn it is
    attempts         an attempt, as its worker writes it
    receipts         receipts, as signed
    files            a tenant's files
    secrets          sealed secrets
    egress_policies  named egress policies
    quotas           quotas, and how a tenant stands to them
    usage            what was used
    retention        what is kept no longer
"""
