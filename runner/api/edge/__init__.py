"""The checks between a connection and a route. They run in the API's process and trust nothing.

A request passes, from outside in:

    connection  TCP connections: time limits for heads, and for answers that nobody reads
    lingering   their end, while the client is still sending a body that was refused
    upgraded    the same for connections that became WebSockets
    tunnel      the same for connections that became tunnels
    sockets     handshakes of WebSockets, which later checks see as GET requests
    address     the client's address, from proxies that the operator trusts
    headers     headers of every answer for browsers, including errors
    browsers    a page instead of a problem, for a browser that signs in
    cors        which pages of other origins may call from a browser
    bounds      limits of a request's head, before anything of it is parsed
    routing     which route it is for: found once, and used by all later checks
    rates       strangers by address, before PostgreSQL is asked; known principals by tier
    doubt       credentials from an address that sent too many wrong ones
    traced      the place of a tenant's request in a trace, and its span
    shares      how many of all connections and streams a principal may hold
    query       whether the route has each query parameter
    json        whether a body is strict JSON, before a parser sees it
    fair        which tenant's request about a sandbox goes next

They use:

    groups     which routes are counted together, and what happens without Redis
    ratelimit  sliding windows in Redis
    pace       how slowly a body may arrive

Each check is plain ASGI, so that it costs little and also covers requests that have no route.
"""
