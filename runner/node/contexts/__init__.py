"""Code contexts: interpreters in living sandboxes that keep their variables from run to run.

A context is a process that runs the image's own program for it (`sandbox_images/contexts`). Node
and program exchange lines of JSON over its stdin and stdout. The code that runs there shares a user
with that program: nothing that it says is trusted, everything is bounded.

    table    the contexts of one sandbox
    context  one of them: one run at a time, the others wait
    run      one run: what its caller hears, masked
    masked   stars secrets in results
    said     what a context's program says
"""
