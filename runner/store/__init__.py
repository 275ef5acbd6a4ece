"""Bytes at rest: PostgreSQL for truth, a folder or bucket for artifacts.

Imported by the API and the worker, each with its own login role. `db` is the only place that
opens connections and the only one that sets the tenant; row-level security does the rest, so a
query that forgets its WHERE returns nothing of another tenant. SQL lives in `queries/*.sql`.
"""
