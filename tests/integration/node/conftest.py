"""A migrated PostgreSQL, shared by the tests of what the worker writes."""

from tests.integration.store.conftest import (
    api,
    claimed,
    owner,
    postgres,
    superuser,
    worker,
)

__all__ = ["api", "claimed", "owner", "postgres", "superuser", "worker"]
