"""The worker's end of one running sandbox. Every byte that comes from there is untrusted.

sandbox    upload, run, collect, destroy
living     the same once it was told to live: many processes, files and ports at once
processes  one process in it: fed, signalled, read from any byte on
filing     files in it: read, written, listed, watched
archives   whole folders in it, as tar archives
dialled    a connection to one of its ports
mux        its connection then: many streams, none of which waits for another
intake     reads that connection
stream     one of them, with its windows
turns      what may be said on a stream, by the command that opened it
meeting    how its supervisor connects, and connects again
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
