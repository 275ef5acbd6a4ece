"""`/mcp`: tools for models, by the Model Context Protocol (modelcontextprotocol.io).

One transport: streamable HTTP without sessions. Each request stands for itself, so any API process
can serve it, and a client that vanishes leaves nothing behind. `runner mcp` is the same over stdio:
it passes calls on to here, so the tools are defined once.

A tool translates to the use cases that `/v1` uses. The middleware counts, bounds and authenticates
a request as any other; a tool checks its own permission and rate.

    route      the HTTP route, and who may call it from a browser
    oauth      where clients log in, if the operator has an identity provider for them
    server     the SDK's server for one request; loaded when the first request comes
    tools      the table of tools, and what every call passes
    tool       what a tool is, and what it gets
    arguments  what a model may ask for
    code       code in a context, and code run once
    commands   commands in sandboxes
    lives      sandboxes: made, listed, killed
    files      files in sandboxes, and artifacts
    results    what a model reads: short, and honest about what was left out
    failures   what a model is told when a tool fails
"""
