"""What a sandbox's supervisor and its node say to each other over one unix socket.

    greeting  the first exchange: which generation of the protocol both speak
    frames    how bytes are cut into pieces, each of a kind and on a stream
    commands  what the node tells the supervisor to do
    events    what the supervisor says
    living    what both speak of, once a sandbox has been told to live
    living_commands    what the node says then
    living_events      what the supervisor says then
    codec     how messages are written as JSON, and read from a hostile place
    schema    a generation as one document

`generations/` holds that document for each generation, for readers and for the tests of both ends.
A generation that was released never changes: another message, field or frame is another generation.
The supervisor's own end is `sandbox_images/supervisor/wire.py`, which runs without any package.
"""
