"""The synchronous half. `scripts/make-sync` writes it from the asynchronous one: change that.

client          one method for each thing the API does
files           the tenant's stored files
keys            the tenant's API keys
members         who belongs to it
projects        its projects
sandboxes       sandboxes that live, made and found
sandbox         one of them
snapshots       files of sandboxes, kept
templates       what they are made from
processes       what runs in them
terminals       their terminals
ports           their ports
forwarding      a local port for one of theirs; each half has its own
sockets         WebSockets to the API
contexts        code interpreters in them
sandbox_files   what is in them
calls           sends requests, and waits where the API says to
local           waiting, and files of this host; each half has its own
"""
