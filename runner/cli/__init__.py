"""The command line: every command of operators and users, over the same parts as production.

Runs with the rights of whoever typed it.

    app      the table of commands
    serve    runs a process of the product
    operate  schema, keys, images, the host
    tenants  tenants, and what they may have
    operators  operators' keys
    members  people's accounts
    profile  seccomp profiles and sizes
    verify   every attack of the catalogue
    run      a program in a sandbox, as if it ran here
    use      executions: look, follow, cancel
    files    stored files
    secrets  secrets, and their keys
    usage    what the tenant used
    audit    the audit log
    webhook  where it is forwarded to
    receipt  receipts, and the keys that sign them
    demo     an agent's task and a hostile program

What they share:

    console      printing, reading and failing
    arguments    what several commands take
    listing      tables, and JSON
    human        sizes, times and numbers
    session      which deployment a command talks to
    database     what operators do in PostgreSQL
    host         what this host offers
    omitted      what is said of output that was cut
    credentials  what is weak about the deployment's own secrets
    observe      what learning a profile needs
"""
