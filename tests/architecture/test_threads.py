"""No request waits for a thread: whatever FastAPI calls for one is asynchronous."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

from fastapi import APIRouter, Depends
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

import runner.api


def routers() -> Iterator[APIRouter]:
    """Yield the routers of all modules of the API."""
    for module in pkgutil.walk_packages(runner.api.__path__, "runner.api."):
        found = getattr(importlib.import_module(module.name), "router", None)
        if isinstance(found, APIRouter):
            yield found


def in_threads(dependant: Dependant) -> Iterator[str]:
    """Yield what a thread would run for a request: the route or a dependency."""
    call = dependant.call
    called = call if inspect.isroutine(call) else getattr(call, "__call__", None)  # noqa: B004 - an object's own is what FastAPI calls
    if not (inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)):
        yield getattr(call, "__qualname__", str(call))
    for each in dependant.dependencies:
        yield from in_threads(each)


def test_no_route_and_no_dependency_runs_in_a_thread() -> None:
    routes = [
        route for router in routers() for route in router.routes if isinstance(route, APIRoute)
    ]
    assert len(routes) > 50
    found = {name for route in routes for name in in_threads(route.dependant)}
    assert found == set()


def test_one_that_does_would_be_seen() -> None:
    router = APIRouter()

    def slow() -> None:
        """Run in a thread."""

    @router.get("/", dependencies=[Depends(slow)])
    async def route() -> None:
        """Run in the loop."""

    (added,) = router.routes
    assert isinstance(added, APIRoute)
    assert [each.rpartition(".")[2] for each in in_threads(added.dependant)] == ["slow"]
