"""Theory of operation: one hardened container for one execution, driven over one unix socket.

Runs in the worker, the only process that reaches Docker; this package is the only one that
imports `docker`. It imports the words and nothing above.

    spec       every hardening flag, as a pure function; nothing else writes Docker arguments
    seccomp    the system calls a sandbox may make, compiled before the first sandbox starts
    users      which user id each sandbox has, alone on its host
    images     what sandboxes are made of, built from the distribution's packages
    engine     the Docker API as far as it is needed: no pull, no exec, no archive copy
    launch     order → container → its supervisor's one connection
    sandbox    upload, run, collect, destroy
    channel    the frames of that connection
    keeper     the limits of living sandboxes, held
    cgroups    what a run used, as the kernel counts it
    ending     the facts of how a run ended
    outcome    what an ending means
    reap       what an earlier worker left behind

Distrusts everything that comes through the channel. Whether a program was killed, when, and for
what is decided from the worker's clock, the kernel's counters and Docker, not from a report.
"""
