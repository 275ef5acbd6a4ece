"""HTTP in and out: checks what clients send, and gives every answer one shape.

Runs in the API process, which reaches PostgreSQL as a role that sees one tenant at a time, rings
Redis, and never touches Docker. A client is hostile until authenticated, and hostile to other
tenants ever after.

Around every route:

    app         the application: routes, middleware, error shape, OpenAPI
    server      uvicorn, on a port or a socket that was handed over
    mcp         tools for models, by the Model Context Protocol
    traffic     HTTP and WebSockets to servers inside sandboxes
    edge        the checks between a connection and a route
    middleware  limits and labels for every request, before any of it is parsed
    deps        what routes get: the parts of the process, and the caller
    callers     who calls: from a key, an identity provider's token, or a session
    rights      ends a request when its right ends
    context     the request's id, and where it came from
    kept_alive  streams that say something now and then
    problems    every error's shape

    e2b         E2B's interface, for their SDKs
    librechat   LibreChat's code interpreter

Resources, a file each, between HTTP and the use cases of `runner.executions`, `runner.sandboxes`,
`runner.templates` and `runner.tenants`:

    executions     submit, read, list, cancel
    events         state changes and output, as they happen
    artifacts      the files a program left
    explanations   why something waited, was refused or ended
    receipts       receipts, and the keys that verify them
    sandboxes      sandboxes that live: made, changed, paused, killed
    sandbox_events  events of a sandbox as they happen
    processes      processes in sandboxes
    terminals      terminals in sandboxes, by WebSocket
    ports          ports of sandboxes: opened for callers without a key
    tcp            connections to ports of sandboxes, by WebSocket
    contexts       code interpreters in sandboxes
    sandbox_files  files in sandboxes
    signed_files  files in sandboxes by signed addresses, which need no key
    sandbox_archives  whole folders in sandboxes
    snapshots      files of sandboxes, kept; and copies of sandboxes
    templates      what sandboxes are made from, built by tenants
    files          a tenant's own files
    secrets        secrets: written and used, never read back
    egress         named lists of egress rules
    projects       names that group executions, with settings
    keys           API keys
    members        who belongs to the tenant, in which role
    login          sessions for web pages, invitations, the password
    sign_in        the same by way of an identity provider
    usage          what a tenant used, and its quotas
    audit          the audit log: listed, verified, exported
    audit_webhook  the webhook that gets the audit log
    fusion         code run once, in the form of SandboxFusion
    public_templates  templates that the operator makes everybody's
    operator       what the operator does with tenants
    operator_session  sessions of operators, for their pages of the console
    operator_sessions  the list of them
    operator_load  load and health, as the operator watches them
    operator_audit  the deployment's own audit log
    nodes          what the operator does with nodes
    node_invitations  one-time tokens by which hosts join
    health         liveness, readiness, metrics
    gauges         the metrics of the whole deployment
    reference      the API's description, as a page
    console        the files of the pages for people

What resources share:

    requests        what a client may ask for
    context_requests  what a client may ask of code contexts
    context_views     how the API shows them
    template_requests  what a client may ask of a template that is to be built
    tenant_requests  what an operator may ask for a tenant
    new_sandbox    a sandbox that is to be made
    sandbox_requests  what a client may ask of sandboxes that live
    sandbox_changes  what a client may change of one
    metrics_views   how the API shows what they use
    sandbox_views   how the API shows them
    terminal_messages  the text messages of a terminal
    fields          the values that fields of requests may have
    counting        work that a head does not show, counted as requests
    contents        the content of a file or of standard input
    cursors         positions in listings, and moments
    rules           egress rules as clients write them
    views           how the API shows what is stored
    representation  entity tags, ranges, digests
    idempotency     whether two submissions are the same
    attended        code for a client that waits for its end
    uploads         bodies of any bytes, received as they come
    downloads       files of sandboxes on their way out
    stored          bytes of the object store on their way out
    turns           turns for work that takes long
"""
