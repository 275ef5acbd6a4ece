"""Use cases for templates: what sandboxes are made from, built by tenants.

A build is a living sandbox of the tenant in which root builds: under gVisor, whose root is nobody
on the host, with the tenant's egress rules as its only way out. A writable root in memory lies over
the image's, and the steps run in it. What they have changed is packed, sealed and kept. When a
sandbox needs it, its node makes an image of it.

    steps     what a build does for each step, and the hash by which a step is known again
    inside    the program that does it, as root in the sandbox
    log       what a build writes, stored some at a time
    below     what a template is built on
    building  one build, from its sandbox to its content
    builds    build, read, list and delete templates
    counting  how many a tenant may have, and one that adds to them at a time
    tagging   tags: which build of a name each stands for
"""
