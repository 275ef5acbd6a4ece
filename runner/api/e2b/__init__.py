"""E2B's interface over the same use cases as `/v1`, for their SDKs as they are published.

A client that sets `E2B_API_URL` and `E2B_SANDBOX_URL` to this API's address reaches two parts: the
control plane, with an API key of ours in their form, and the inside of a sandbox, with a token that
is good for that sandbox only. Requests pass the same checks as all others; only errors have
another shape. What is not supported is refused by name, and never ignored.

    paths      which requests are E2B's, and for which part
    shape      errors as E2B's clients read them
    callers    who calls: an API key in their form, a sandbox's token, or a signed address
    routes     all of them, in order
    inside     what routes inside a sandbox get: the caller and the sandbox

The control plane:

    requests   what a client may ask for
    views      what it is answered
    templates  what sandboxes are made from
    network    E2B's network rules as egress rules
    sandboxes  sandboxes: made, connected to, listed, changed, ended
    snapshots  snapshots of sandboxes, and copies of them
    builds     templates: announced, built, followed
    build_requests  what a client may ask of one that is to be built
    expansion  variables in those steps
    tags       tags of templates
    measures   what sandboxes use
    unsupported  what there is not, refused by name

Inside a sandbox:

    health       whether it runs
    daemon       commands and files
    interpreter  code run in contexts, and their life
    executed     what happens in a run, as lines of JSON
"""
