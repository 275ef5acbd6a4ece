"""HTTP in and out: what clients say is checked here, and every answer has one shape.

Runs in the API process, which reaches PostgreSQL as a role that sees one tenant at a time, rings
Redis, and never touches Docker. `app` puts it together, `deps` gives a route its principal and
parts, `problems` is every error's shape, `middleware` bounds requests before they are parsed;
then one file for each resource. A client is hostile until authenticated, and hostile to other
tenants ever after.
"""
