"""Use cases of executions, without HTTP, RQ and Docker.

A use case takes a caller, whose permission the API has checked, and plain values. It raises errors
of `runner.words.errors`.

    submit      stores an order, queues it, and waits for its end
    order       what a caller wants to run, and how its names are resolved
    through     for somebody who waits for the end
    notices     what a worker tells an API that waits for an end, sealed
    admission   whether the deployment accepts one more
    cancel      ends an execution early
    read        an execution with its place in the queue, or with its output
    follow      the events of an execution as they happen
    receipt     what the worker signed about an execution
    explain     why an execution waited, was refused or ended
    meanings    what the reasons of ends mean
"""
