"""Where runs get their sandboxes: a new one, one that was started ahead, or one used before.

sandboxes  the seam, and a new container for each execution
pool       sandboxes started ahead, of nobody
demand     how many to keep ready
reuse      sandboxes that serve one tenant again
disposal   sandboxes that have served, on their way out
"""
