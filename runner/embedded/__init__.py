"""PostgreSQL and Redis as private child processes of one host: the default for trying things out.

They listen on unix sockets in a folder of their own, run as an unprivileged user if we are root,
and end with the process that started them. `stack` adds API and worker as child processes, so that
one command runs a whole deployment. In production, the operator sets URLs and uses none of this.

    services  both services, and the URLs that lead to them
    postgres  a private PostgreSQL
    redis     a private Redis
    process   children that cannot outlive their parent
    hold      one stack at a time in each state folder
    stack     the whole product on one host
"""
