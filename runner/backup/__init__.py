"""A whole deployment copied while it runs, and put back into an empty one.

Commands of the operator run it, with a superuser's login of PostgreSQL: row-level security hides
tenants' rows from everybody else. A backup is a folder:

    manifest.json   what the others hold, with their hashes; signed, and written last
    database.dump   PostgreSQL's own format, of one moment
    objects.ndjson  each object that the dump refers to: its key, bytes and hash
    chains.ndjson   where each audit chain ended at that moment
    objects/        the objects
    state/          what the state folder holds besides private keys

Private keys go into a second folder, or nowhere: whoever has the keys and the data reads every
tenant's secrets (decision 0045).

**Objects and rows.** An object never changes once it is written, but it may be removed. So objects
are copied first, while nothing else waits. Then one snapshot of the database names the objects
that exist at its moment. Those that are new are copied at once, and the dump is made of the same
snapshot. If an object was removed in between, everything is compared again. A row of the dump
therefore never names an object that the backup lacks.

**Whole or recognisable.** A backup is written beside its place, and renamed once it is whole. The
next attempt continues with the objects that were copied already. A restore verifies every hash
before it writes anything, and writes only where there is nothing.

    manifest  what a backup says about itself, signed
    files     files that are copied and hashed, and folders that appear whole
    state     which files of a state folder belong to a backup
    objects   the object store, copied out and in
    database  PostgreSQL's own programs, and its roles
    take      makes a backup
    whole     verifies a backup
    restore   puts a backup into an empty deployment
    check     verifies a restored deployment, tenant by tenant
    waiting   cancels what would run again
"""
