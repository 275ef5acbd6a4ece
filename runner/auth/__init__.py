"""Who is it, and may they: API keys to principals, principals to permissions.

Runs in the API. A credential is looked up by its prefix, before its tenant is known, through the
one database function that may; everything after that happens inside the tenant.
"""
