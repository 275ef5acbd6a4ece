"""The nodes of a deployment, as the API and the operator know them.

Each node registers itself (`runner.node.membership`) and says every few seconds that it lives and
what it holds. What is here only reads that, and stores what the operator wants. Nothing here is
trusted to be up to date: a node decides itself, in PostgreSQL, what it takes.

    choice     which nodes can take a sandbox, the best first
    directory  the nodes, remembered for a moment, so that no creation waits for a statement
    load       what an operator watches: nodes, and tenants that have work
    invitations  one-time tokens by which hosts join, as the operator makes them
    admission  the process where they are used, which alone has the authority's key
    operating  what the operator does: lists, drains, resumes and removes nodes
"""
