"""The node's door: how the API reaches a sandbox that lives, without the database in between.

    wire     frames on a connection, one for each call
    reaching  connections to doors: a socket of this host, or TLS
    identity  who is at each end of a door that other hosts reach
    joining  how a new host gets its first certificate, by a one-time token
    revocation  certificates that are revoked before they expire
    silence  hanging up on another host that the network has lost
    grants   permission to knock: signed, for one sandbox and one call, for a few seconds
    call     what every call shares
    calls    what the API says
    code_calls  the part of it about code contexts
    replies  what the node answers
    streams  calls that go on for a while, as the API holds them
    contexts  the API's end of calls about code contexts
    creation  the API's end of a create, which begins before there is a row
    client   the API's end; the node's is `runner.node.residents`

Before the API signs a grant, it checks that the caller may do this. The node trusts the grant and
nothing else; the API trusts the node, but nothing that a sandbox says through it.
"""
