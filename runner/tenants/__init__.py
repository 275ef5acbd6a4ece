"""What is done to and in tenants: use cases, which know neither HTTP nor Docker.

tenancy    what the operator does: makes, changes, suspends and ends tenants
policies   named lists of egress rules, each within what the operator permits
"""
