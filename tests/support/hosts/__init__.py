"""Hosts on this machine, each with a network, processes, mounts and a Docker daemon of its own.

    machines  what can lose its power or its cable, and the switch between them
    slow      a link that delays and loses frames
    daemons   a Docker daemon on each
    images    the image that it has from the beginning
    releases  other states of the code, for upgrades
    engine    what all hosts share: PostgreSQL and Redis over TLS, and a bucket
    fleet     a deployment of one API and several nodes

All of it needs root. The network of the machine that runs the tests is never touched.
"""
