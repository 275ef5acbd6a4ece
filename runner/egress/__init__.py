"""The egress proxy: a process of its own, the only way out of a sandbox.

The worker hands it one listening socket for each sandbox; the socket a connection arrives at says
whose it is. One decision binds everything: the name as normalised, a rule for it, one lookup, the
address that is connected to, and the name inside TLS.
"""
