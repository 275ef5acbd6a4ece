"""The daemon that E2B's clients expect inside each sandbox: commands and files.

It runs here, over the use cases that `/v1` uses, and nothing of it is in a sandbox.

    connect     the Connect protocol: messages, codes, time limits
    calls       how its calls are answered
    messages    what clients say
    answers     what they are told
    failures    our failures in E2B's words
    users       the only user whom a client may name
    process     processes and terminals
    filesystem  files, folders, watching
    tree        files as E2B has them
    listing     what is in a folder
    files       bytes of files, in and out
    multipart   bodies of several parts
    coding      bodies in gzip
    environment  what every process is given
"""
