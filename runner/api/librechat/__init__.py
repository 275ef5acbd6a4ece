"""LibreChat's code interpreter, as its server and the package `@librechat/agents` call it.

Off by default. A thin door: code runs as an execution in the image `librechat`, whose home is
`/mnt/data`, and files are the tenant's own, below `librechat/`.

Executions, and not living sandboxes, because that is what LibreChat expects and says to its models:
each run is isolated and keeps no variables, and only files go on to the next run. The client names
each of these files in its request, by the session that it came from. So nothing needs to live
between two messages of a chat, which may be hours apart.

A session is a random name for the files of one upload or one run. Whoever knows it, and has a key
of the tenant, may read them; LibreChat itself keeps its users apart. Files expire after `KEPT`.

    paths     which requests are LibreChat's, who sends them, and the shape of their errors
    messages  what LibreChat sends, and what it reads
    sessions  files by session and id
    uploads   files on their way in
    runs      code as an execution, and what is left of it
    routes    the routes
    calling   code that calls LibreChat's tools
    replay    the program that runs such code in a sandbox
"""
