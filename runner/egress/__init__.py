"""The egress proxy: a process of its own, and the only way out of a sandbox.

The worker hands the proxy one listening socket for each sandbox, so the socket at which a
connection arrives says which sandbox it comes from. The proxy decides once on each request, in this
order: it normalises the name, finds a rule for it, looks it up, and chooses an address. It connects
to exactly that address, and requires the same name inside TLS.

    gateway       the worker's side: keeps the proxy running, opens and closes sessions
    opened        a session as the worker knows it
    control       the messages between worker and proxy
    policy        what a sandbox may reach, with budgets
    proxy         the process: starts, gives up its rights, serves
    confine       the rights that the process gives up
    session       one sandbox's policy, budgets and records
    share         what one tenant may take of the proxy
    places        how many connections of one sandbox are served at once
    refusal       how a client is told why it was refused
    serve         one connection of a sandbox, from its first byte
    http          HTTP through the proxy
    socks         the part of SOCKS5 that makes tunnels
    tunnel        tunnels, inspected as far as their rule says
    requests      checks and rewrites an HTTP request
    paths         whether a path lies below a prefix
    decide        the one decision
    upstream      connections to the address that was decided on
    streams       bytes in both directions, with TLS or without
    clienthello   the host that a TLS client names
    certificates  the authority for hosts whose TLS the proxy ends
    hide          masks secrets in servers' answers
"""
