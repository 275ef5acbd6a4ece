"""What is done to and in tenants: use cases, which know no HTTP, no RQ and no Docker.

A use case takes who calls, plain values and a transaction of the tenant, or the database if it
needs more than one. It raises errors of `runner.words.errors`.

    tenancy    what the operator does: makes, changes, suspends and ends tenants
    members    who belongs to a tenant and as what
    keys       API keys
    projects   names under which executions are grouped
    policies   named lists of egress rules, each within what the operator permits
    secrets    written and used, never read back
    usage      what was used, and how that stands to the quotas
    files      a tenant's own files
    webhooks   where the audit log is forwarded to
"""
