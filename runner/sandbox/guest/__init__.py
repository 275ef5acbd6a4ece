"""The worker's end of one running sandbox. Every byte that comes from there is untrusted.

sandbox    upload, run, collect, destroy
channel    the frames of its one connection
pace       its share of the worker's event loop
patience   how long it is waited for
sockets    the folder with its unix sockets
inputs     files on their way in
run        one program, from its start to its end
artifacts  files on their way out
ending     the facts of how a run ended
outcome    what an ending means
"""
