"""Host names on the network, and the addresses to which we may connect for them.

Everything here is pure except the lookup itself. Everything that connects on somebody else's behalf
uses it: the egress proxy, and the delivery of the audit log.

    names      host names in one spelling, or not at all
    addresses  public addresses, and those of networks that the operator trusts
    lookup     from a name to the addresses to which we may connect, once
    roots      the authorities that vouch for servers
"""
