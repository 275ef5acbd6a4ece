"""What a sandbox's supervisor and its node say to each other over one unix socket.

    frames    how bytes are cut into pieces of a kind
    messages  what a report may be, field by field

The supervisor's own end is `sandbox_images/supervisor/wire.py`, which runs without any package.
Whatever comes from there comes from a hostile place: bounds and types are checked here.
"""
