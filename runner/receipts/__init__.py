"""Receipts: one signed statement for each execution and each sandbox that a worker ended.

document          what an execution's receipt says
sandbox_document  what a sandbox's says
"""
