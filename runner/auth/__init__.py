"""Authentication and authorisation: credentials to principals, principals to permissions.

Runs in the API. A credential is looked up by its prefix or its hash before its tenant is known,
through database functions that return only that one. Everything after that happens inside the
tenant. Passwords are hashed in threads of this process. An identity provider is asked only for its
keys, and for whom a code stands, at the address that the operator set.

    caller       a principal and where its request came from; records what it does
    identity     from an `Authorization` header to a caller
    keys         API keys and operators' keys
    oidc         tokens of an identity provider
    provider     what an identity provider publishes, and how it is asked
    sign_in      signing in at an identity provider, for the console
    open_sign_ins  sign-ins that are under way
    sandbox_tokens  tokens that act in one sandbox on behalf of a key
    sessions     sessions of users, and their tokens against CSRF
    operating    sessions of operators, and their requests that end with these
    tokens       one-time tokens: joining a tenant, a forgotten password
    login        logging in and out, invitations, changes of password
    passwords    argon2id
    throttle     how often a login may be tried
    permissions  what each role may do
    grants       which rights a principal may pass on
    rights       what ends with a right
    holding      requests that are under way, and how they end with a right
"""
