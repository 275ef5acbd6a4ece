"""The words that every stage speaks: plain values and errors, which import nothing of ours.

principal  who acts
resources  what a sandbox may use, and what one run in it may take
sandbox    what a sandbox is and is made from, whoever uses it
execution  one run of one tenant's program: what was asked for, what came of it
states     the states of an execution, and the reasons for its end
errors     our failures, drawn once
ids        ids that sort by the time they were made
paths      names of tenants' files
text       text of unknown origin, made fit to be printed
json       JSON in which no key appears twice
"""
