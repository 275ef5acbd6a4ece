"""Identifiers: time-ordered UUIDs (RFC 9562, version 7), so that primary keys sort by creation."""

from uuid import UUID

from uuid_utils.compat import uuid7

PLATFORM_TENANT = UUID(int=0)
"""The audit chain of the deployment itself: events that belong to no tenant."""


def new_id() -> UUID:
    """Return a fresh, time-ordered identifier."""
    return uuid7()
