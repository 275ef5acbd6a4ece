"""Sandboxes that live, on the side of the node that holds them.

opening    opens everything here, and closes it
door       the socket where the API knocks: who may, and which call it makes
far        the same door for APIs on other hosts, over TLS
strangers  how often hosts have failed to show a certificate there
talks      calls about processes, with their output and input, and about ports
coding     calls about code contexts
files      calls that read and write files
archives   calls that read and write whole folders
callers    bounds the calls of each sandbox and tenant, and notices callers that hang up
attend     listens to a caller while its call is answered
residents  all sandboxes that live here: made, taken over after a restart, kept by a lease, ended
beginning  makes a sandbox live: its row claimed, its container furnished, its start on record
resident   one sandbox: its processes, its time, its end
row        writes its state, its use and its end, each with its audit record
ending     puts an end on record, and signs its receipt
reaping    ends sandboxes that no node holds any more
following  makes sandboxes follow their rows, as of a change that nobody told the node of
freezing   pauses a sandbox, and resumes it
processes  the processes that were started in a sandbox, and what the node knows of each
starts     starts processes, and records that
masked     output with its secrets starred and its bytes in order
furnish    what a sandbox is given: a container, secrets, a way out
masks      keeps what must be masked, sealed, for a later process
carried    counts what goes through a sandbox's ports
meter      reads a sandbox's counters
timing     which limit of a sandbox's time comes next
evicting   makes room on a host that is short of memory
usage      enters use into the ledger, and pauses the sandboxes of tenants without quota left
spans      what traces show of processes and code in sandboxes
journal    audit records of actions in sandboxes, written in batches

A resident outlives this process. Its row says where it is, under which lease, and by which secret
its supervisor proves itself again. Nothing that the supervisor says is trusted beyond its protocol.
The database alone decides which sandboxes may live.
"""
