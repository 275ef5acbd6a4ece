"""What stands between a connection and a route. Runs in the API's process; trusts nothing.

A request passes, from outside in:

1. `connection` — sockets: how many, how long a head may take, answers that nobody reads.
2. `address` — who is at the other end, where the operator names proxies to believe.
3. `headers` — what every answer says to browsers, errors included.
4. `bounds` — how much head a request may have. Nothing of it is parsed before.
5. `rates` — strangers by address, before PostgreSQL is asked; known principals by tier.
6. `bodies` — how much body, how slowly, and of what JSON, before a parser sees it.

Each is plain ASGI, so that it costs little and holds for routes and for what has no route.
"""
