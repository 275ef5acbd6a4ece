"""E2B's routes, in the order in which they are tried."""

from fastapi import APIRouter

from runner.api.e2b import (
    builds,
    health,
    interpreter,
    measures,
    sandboxes,
    snapshots,
    tags,
    unsupported,
)
from runner.api.e2b.daemon import environment, files, filesystem, process


def routers() -> tuple[APIRouter, ...]:
    """Return the routers of E2B's interface."""
    return (
        # Before `sandboxes`, where `metrics` would be a sandbox's id.
        measures.router,
        sandboxes.router,
        # Before `snapshots`, where `files` would be a part of a template's name.
        builds.router,
        # Before `snapshots`, where `tags` would be a template's name.
        tags.router,
        snapshots.router,
        health.router,
        process.router,
        filesystem.router,
        files.router,
        environment.router,
        interpreter.router,
        # The last: it takes every path of what there is not.
        unsupported.router,
    )
