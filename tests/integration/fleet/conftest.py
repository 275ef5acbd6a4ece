"""A migrated PostgreSQL, for tests of how hosts join."""

from tests.integration.store.conftest import api, operators, postgres, superuser, worker

__all__ = ["api", "operators", "postgres", "superuser", "worker"]
