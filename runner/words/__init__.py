"""The words that every stage speaks: plain values and errors, which import nothing of ours.

principal  who acts
resources  what a sandbox may use, and what one run in it may take
sandbox    what a sandbox is and is made from, whoever uses it
execution  one run of one tenant's program: the request and its result
living     a sandbox that lives, what a client does in it, and the results
states     the states of an execution, and the reasons for its end
lives      the states of a sandbox that lives, and the reasons for its end
nodes      a node, and whether it takes anything
explanation  why something waited, was refused or ended
errors     every error that this package raises, as one tree
templates  what a template is made by, and how its sandboxes name it
trace      a place in a trace, as `traceparent` writes it
ids        ids that sort by the time at which they were made
paths      names of tenants' files
text       text of unknown origin, made fit to be printed
complaints  what is wrong with a value, in plain words
json       JSON in which no key appears twice
"""
