"""Who is it, and may they: keys, sessions and tokens to principals, principals to permissions.

Runs in the API. A credential is looked up by its prefix or its hash, before its tenant is known,
through database functions that return that one; everything after that happens inside the tenant.
Passwords are hashed in threads of this process. An identity provider is asked for its keys alone,
at the address that the operator set.
"""
