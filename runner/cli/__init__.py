"""The command line: all commands of operators and users, on the same parts as in production.

Commands run with the rights of the user who types them.

    app      the table of commands
    serve    runs a process of the product
    people   how an API lets people in
    operate  schema, images, the host
    backup   a whole deployment, backed up and restored
    keys     API keys
    tenants  tenants and their terms
    operators  operators' keys
    nodes    nodes: what they hold, drained and removed
    joining  how hosts become nodes: invitations, the admission, joining
    members  user accounts
    profile  seccomp profiles and sizes
    top      nodes, the queue by tenant and rates, as they change
    verify   tries every attack of the catalogue
    run      runs a program in a sandbox, as if it ran here
    use      executions: show, follow, cancel
    explain  why an execution or a sandbox waited, was refused or ended
    sandbox  sandboxes that live
    sandbox_use  commands and files in sandboxes
    snapshots  files of sandboxes, kept
    templates  what sandboxes are made from
    public_templates  those of them that are everybody's
    sandbox_shell  a terminal in a sandbox
    sandbox_watch  events of sandboxes
    sandbox_ports  a local port for one of theirs
    files    stored files
    mcp      tools for models, on stdin and stdout
    agents   agents that live elsewhere, whose tools run in sandboxes
    claude_worker  sessions of Claude's managed agents
    claude_tools  their tools, in a sandbox
    secrets  secrets, and their keys
    usage    what the tenant used
    audit    the audit log
    webhook  the webhook that gets the audit log
    receipt  receipts, and the keys that sign them
    demo     an agent's task and a hostile program

What commands share:

    console      printing, reading and failing
    arguments    arguments of several commands
    passing_on   commands that pass on a command line of the user
    dockerfile   a Dockerfile as the steps of a template
    ids          finds the whole id for its beginning
    listing      tables, and JSON
    human        sizes, times and numbers
    session      which deployment a command talks to
    address      how to reach a deployment, and how `runner dev` tells that
    embedded     a deployment that a command starts for itself
    database     runs operators' work in PostgreSQL
    host         what this host offers
    crun_findings  what `runner doctor` says of crun
    service_urls  what the URLs of PostgreSQL and Redis say of TLS
    service_findings  what `runner doctor` says of an operator's own PostgreSQL and Redis
    omitted      tells users about output that was cut
    credentials  weaknesses of the deployment's own secrets
    observe      what learning a profile needs
"""
