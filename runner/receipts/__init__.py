"""Receipts: for each execution that a worker ended, one signed statement of what ran, in what.

document  what a receipt says
"""
