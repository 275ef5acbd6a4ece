"""What stands between a connection and a route. Runs in the API's process; trusts nothing.

A request passes, from outside in:

1. `connection` — sockets: how long a head may take, answers that nobody reads.
2. `address` — who is at the other end, where the operator names proxies to believe.
3. `headers` — what every answer says to browsers, errors included.
4. `bounds` — how much head a request may have. Nothing of it is parsed before.
5. `routing` — which route it is for: found once, and asked by every check behind.
6. `rates`, `doubt` — strangers by address, before PostgreSQL is asked; known principals by tier.
7. `shares` — how many connections and streams a principal holds of all there are.
8. `json` — of what JSON a body is, before a parser sees it.

Each is plain ASGI, so that it costs little and holds for routes and for what has no route.
"""
