"""What is done to executions: use cases, which know no HTTP, no RQ and no Docker.

A use case takes a caller, whose permission has been checked, and plain values. It raises errors of
`runner.words.errors`.

    submit      an order is stored and queued, and its end waited for
    order       what a caller wants run, by names, and what it becomes
    admission   whether the deployment takes one more
    cancel      one is ended before it ends by itself
    read        one with its place in the queue, or with what it left
    follow      its events as they happen
    receipt     what the worker signed of one
"""
