"""Use cases of tenants and of everything in them, without HTTP, RQ and Docker.

A use case takes the caller, plain values and a transaction of the tenant; if it needs more than one
transaction, it takes the database. It raises errors of `runner.words.errors`.

    tenancy    what the operator does: creates, changes, suspends, deletes
    publishing  templates that the operator makes everybody's
    members    who belongs to a tenant, in which role
    identities  subjects of an identity provider that stand for members
    keys       API keys
    projects   names that group executions
    policies   named lists of egress rules, within what the operator permits
    secrets    secrets: written and used, never read back
    usage      what was used, and what is left of the quotas
    files      a tenant's own files
    webhooks   the address that gets the audit log
"""
