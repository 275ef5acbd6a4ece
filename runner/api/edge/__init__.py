"""What stands between a connection and a route. Runs in the API's process; trusts nothing.

A request passes, from outside in:

    connection  sockets: how long a head may take, answers that nobody reads
    address     who is at the other end, where the operator names proxies to believe
    headers     what every answer says to browsers, errors included
    cors        which pages of other origins may call from a browser
    bounds      how much head a request may have; nothing of it is parsed before
    routing     which route it is for: found once, and asked by every check behind
    rates       strangers by address, before PostgreSQL is asked; known principals by tier
    doubt       credentials from an address that presented too many wrong ones
    shares      how many connections and streams a principal holds of all there are
    query       that the route has each query parameter
    json        of what JSON a body is, before a parser sees it

They lean on:

    groups     which routes are counted together, and what becomes of them without Redis
    ratelimit  sliding windows in Redis
    pace       how slowly a body may come

Each check is plain ASGI, so that it costs little and holds for routes and for what has no route.
"""
