"""What a name on the network is, and which addresses may be connected to for it.

Pure but for the lookup itself. Used by all that connects for somebody else: the egress proxy, and
what delivers the audit log.

    names      host names in one spelling, or not at all
    addresses  public addresses, and those of networks the operator trusts
    lookup     from a name to the addresses that may be connected to, once
    roots      the authorities that servers are trusted by
"""
