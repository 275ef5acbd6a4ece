"""Between clients and the servers inside sandboxes: HTTP and what it is upgraded to.

Requests to a port of a sandbox leave the API's way early: their bodies, methods, queries and
cookies are not the API's. They have a way of their own, with the same authentication, rates, shares
and rights. Nothing of what comes from inside is trusted; see decision 0030.

    destination  which port of which sandbox a request is for, by path or by name
    callers      who may reach a port: by a key, by a port's token, or anybody
    cookies      the cookie by which a browser holds a port's token
    asked        a request's head as the server inside gets it
    answered     an answer's head as the client gets it
    exchange     one exchange in HTTP/1.1 with a server inside
    carried      one request on its way inside, and its answer or tunnel back
    proxy        lets a request in, and tells what went wrong with it
    way          all that a request to a port passes
"""
