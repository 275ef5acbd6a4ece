"""The egress proxy: a process of its own, the only way out of a sandbox.

The worker hands it one listening socket for each sandbox; the socket a connection arrives at says
whose it is. One decision binds everything: the name as normalised, a rule for it, one lookup, the
address that is connected to, and the name inside TLS.

    gateway       the worker's side: keeps the proxy, opens and closes sessions
    control       what worker and proxy say to each other
    policy        what a sandbox may reach, with budgets
    proxy         the process: begins, gives up its rights, serves
    confine       what it gives up
    session       one sandbox's standing, and its records
    share         what one tenant may take of the proxy
    places        the connections of one sandbox that are served at once
    refusal       how a client is told why
    serve         one connection of a sandbox, from its first byte
    http          HTTP through the proxy
    socks         SOCKS5, as far as it makes tunnels
    tunnel        tunnels, looked into as their rule says
    requests      an HTTP request, judged and rewritten
    paths         whether a path lies below a prefix
    decide        the one decision
    upstream      connections to what was decided on
    streams       bytes both ways, with TLS or without
    clienthello   the host a TLS client names
    certificates  the authority for hosts where TLS is ended
    hide          secrets starred out of answers
"""
