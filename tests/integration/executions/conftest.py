"""PostgreSQL with its schema, as the store's tests have it."""

from tests.integration.store.conftest import api, owner, worker

__all__ = ["api", "owner", "worker"]
