"""The worker's end of one running sandbox. Every byte that comes from there is untrusted.

sandbox    upload, run, collect, destroy
meeting    how its supervisor connects, once
container  what its node holds of it: counted, ended, removed
process    one program, held to its time and counted
channel    the frames of its one connection
pace       its share of the worker's event loop
patience   how long it is waited for
sockets    the folder with its unix sockets
inputs     files on their way in
run        one program, as the supervisor tells of it
artifacts  files on their way out
ending     the facts of how a run ended
outcome    what an ending means
"""
