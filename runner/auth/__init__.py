"""Who is it, and may they: keys, sessions and tokens to principals, principals to permissions.

Runs in the API. A credential is looked up by its prefix or its hash, before its tenant is known,
through database functions that return that one; everything after that happens inside the tenant.
Passwords are hashed in threads of this process. An identity provider is asked for its keys alone,
at the address that the operator set.

    caller       a principal and where its request came from; puts on record what it does
    identity     from an `Authorization` header to who calls
    keys         API keys and operators' keys
    oidc         tokens of an identity provider
    sessions     sessions of users, and their tokens against CSRF
    tokens       one-time tokens: joining a tenant, a forgotten password
    login        logging in and out, invitations, passwords changed
    passwords    argon2id
    throttle     how often a login may be tried
    permissions  what each role may do
    grants       what may be handed on
    rights       what ends with a right
"""
