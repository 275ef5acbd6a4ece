"""One execution on this node, from the ring to the stored result.

taker        takes rings while a slot is free, and looks for work in that slot
claimer      claims the next execution, until the node drains
execute      the recipe: claim, launch, run, collect, record, dispose
policy       settings that hold for every execution
actor        the execution or living sandbox that an action belongs to
attempt      the state of one attempt, from its claim to its end
lease        renews the attempt's lease, or ends the sandbox
program      gives the program its inputs, runs it, collects its files
start        when the program's start is recorded
inputs       the files that the program gets
secrets      the secrets that the program gets, and their masks
egress       the program's egress, and the record of what it asked for
told         egress decisions, masked and shortened for reports
recorder     gathers output and events, and writes them in batches
output       the part of a stream that is kept: masked, bounded, in whole characters
artifacts    stores the files that the program left
spans        what traces show of an attempt, from the times of its stages
finish       writes the end and its receipt, as much of it as can be stored
settle       ends an attempt that has no result of its own
unstarted    what happens if the program did not begin
interrupted  what happens to an attempt that was interrupted
refusals     counts rings that are refused
"""
