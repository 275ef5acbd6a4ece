"""Parts that every process needs: settings, logs, keys, tasks, masking, system call filters.

It knows tenants and executions only from `runner.words`, and reaches no other part of a deployment.

    settings   what the operator configures, from the environment
    identity_settings  those about people: sessions, and an identity provider
    defaults   settings that depend on the host, if nobody sets them
    recipe     what a sandbox image holds, as its file says
    forms      the forms that settings must have
    rates      how often callers may send requests, as the operator sets it
    telemetry  structured logs, without secrets
    tracing    spans: what they may say, and who takes them
    tracers    which tracer a process has
    otlp       sends spans to a collector, from a thread of its own
    listening  the socket that the API listens on
    exposition  a process's metrics, for Prometheus on this host
    health     what a worker says about itself, for whoever supervises its process
    duties     supervised work that continues as long as its process
    locks      files that a process locks to show that it runs
    sockets    accepts connections, and loses none when cancelled
    short_redis  connections to Redis for what a request waits for
    lost_peers  whether the other end of a TCP connection is lost
    tasks      what asyncio lacks: work that is not interrupted, work beside other work
    signing    Ed25519 keys of the deployment, and canonical documents signed with them
    masking    finds secrets' values in what a program writes, in whatever form
    seccomp    allowlists of system calls, compiled
"""
