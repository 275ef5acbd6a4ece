"""The kernel's view of a sandbox, and its limits, whatever the sandbox says itself.

kernel     files of the kernel, read with bounds
cgroups    what a sandbox may use and has used
guards     the two threads below, as all sandboxes of a node have them
keeper     the limits of living sandboxes, held
watchdog   ends what is to end by the clock, whatever the event loop does
traces     what a sandbox leaves on the host when it is gone
isolation  what really stands around a running sandbox
weights    how scarce processors are divided between tenants
"""
