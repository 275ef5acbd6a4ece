"""One execution on this node, from the ring to its end on record.

consumer     answers rings: one thread for each slot
claimer      claims whose turn it is, until the node drains
execute      the recipe: claim, launch, run, collect, record, dispose
policy       what holds for every execution
attempt      what one attempt has, from its claim to its end
lease        keeps the attempt ours, or ends the sandbox
program      what the program is given, its run, what it leaves
start        when the program's start goes on record
inputs       the files that the program is given
secrets      the values that the program is given, and their masks
egress       the program's way out, and the record of what it asked for
recorder     output and events, gathered and written in batches
output       what is kept of a stream of output: starred, bounded, in whole characters
artifacts    what the program left, into the object store
finish       the end and its receipt, however little of it can be stored
settle       the end of an attempt whose worker cannot write it any more
unstarted    what is done with an execution whose program did not begin
interrupted  what becomes of an attempt that goes no further here
refusals     rings that are not ours, counted
"""
