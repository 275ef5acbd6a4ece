"""The sources of sandboxes for runs: a new one, one that was started ahead, or a reused one.

sandboxes  the interface, and a new container for each execution
pool       sandboxes that were started ahead and belong to nobody yet
demand     how many to keep ready
reuse      sandboxes that serve one tenant again
templates  images of tenants' templates, made when a sandbox needs one
disposal   the removal of used sandboxes
"""
