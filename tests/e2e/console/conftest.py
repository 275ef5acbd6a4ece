"""What the console's tests share: a deployment with sessions, people of each role, a browser."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser

from runner.words.principal import Role
from tests.support import browser as browsers
from tests.support import deployment as deployments
from tests.support.browser import Visitor
from tests.support.deployment import NO_POOL, Deployment
from tests.support.people import Person, joined

TENANT = "acme"


@pytest.fixture(scope="module")
def world(image: None) -> Iterator[Deployment]:
    """Return a deployment whose sessions travel over plain HTTP, with the console."""
    browsers.build()
    with deployments.deployment(insecure_cookies=True, **NO_POOL) as made:
        yield made


@pytest.fixture(scope="module")
def people(world: Deployment) -> dict[Role, Person]:
    """Return a person of each role in one tenant."""
    return {role: joined(world, TENANT, f"{role.value}-{TENANT}", role) for role in Role}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a browser."""
    with browsers.chromium() as made:
        yield made


@pytest.fixture
def visit(
    world: Deployment, browser: Browser, people: dict[Role, Person]
) -> Iterator[Callable[..., Visitor]]:
    """Return a function that opens a window for a person of a role."""
    with ExitStack() as windows:

        def opened(role: Role = Role.OWNER, url: str = world.url, **options: Any) -> Visitor:
            return windows.enter_context(browsers.visitor(browser, url, people[role], **options))

        yield opened
