"""HTTP in and out: what clients say is checked here, and every answer has one shape.

Runs in the API process, which reaches PostgreSQL as a role that sees one tenant at a time, rings
Redis, and never touches Docker. A client is hostile until authenticated, and hostile to other
tenants ever after.

Around every route:

    app         the application: routes, middleware, error shape, OpenAPI
    server      uvicorn, on a port or a socket that was handed over
    edge        what stands between a connection and a route
    middleware  bounds and marks on every request, before any of it is parsed
    deps        the parts of the process, and the caller with its permission
    callers     who calls: by a key, an identity provider's token, or a session
    rights      holds every request by the right that it came with
    context     the request's id, and where it came from
    problems    every error's shape

Resources, a file each, between HTTP and the use cases of `runner.executions` and `runner.tenants`:

    executions     submit, read, list, cancel
    events         state changes and output, as they happen
    artifacts      the files a program left
    receipts       receipts, and the keys that verify them
    files          a tenant's own files
    secrets        written and used, never read back
    egress         named lists of egress rules
    projects       names that group executions, with settings
    keys           API keys
    members        who belongs to the tenant, and as what
    login          sessions for web pages, invitations, the password
    usage          what a tenant used, and its quotas
    audit          the audit log: listed, verified, exported
    audit_webhook  where the audit log is forwarded to
    operator       what whoever runs the deployment does to tenants
    health         liveness, readiness, metrics
    reference      the API's description, as a page

What resources share:

    requests        what a client may ask for
    fields          what fields of requests may hold
    contents        what a file or standard input holds
    cursors         positions in listings, and moments
    rules           egress rules as clients write them
    views           what the API says of what is stored
    representation  entity tags, ranges, digests
    idempotency     whether two submissions are the same
    uploads         the body of an upload: stored as it comes, and checked
    turns           turns at work that takes long
"""
