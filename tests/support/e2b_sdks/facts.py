"""The deployment that the SDKs are pointed at, and what their cases know about it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from runner.auth.keys import in_e2b_form
from tests.support import deployment as deployments
from tests.support.deployment import PORTS_DOMAIN, deployment

OPEN_HOST, OTHER_HOST = "open.example.test", "other.example.test"
NOBODY = "127.83.17.1"
"""A loopback address where nothing listens."""
IMAGES = ("python", "base", "code-interpreter-v1")


@contextmanager
def deployed() -> Iterator[Mapping[str, str]]:
    """Yield the environment of a program that uses a deployment through an SDK of E2B's."""
    for each in IMAGES:
        deployments.build_image(each)
    with deployment(
        images=IMAGES,
        ports_domain=PORTS_DOMAIN,
        egress_trusted_networks=("127.0.0.0/8",),
        egress_hosts=dict.fromkeys((OPEN_HOST, OTHER_HOST), NOBODY),
    ) as made:
        yield {
            "E2B_API_KEY": in_e2b_form(made.key("e2b")),
            "E2B_API_URL": made.url,
            "E2B_SANDBOX_URL": made.url,
            "E2B_VOLUME_API_URL": made.url,
            "E2B_TEST_API": made.url,
            "E2B_TEST_PORTS_DOMAIN": PORTS_DOMAIN,
            "E2B_TEST_OTHER_KEY": in_e2b_form(made.key("another")),
            "E2B_TEST_OPEN_HOST": OPEN_HOST,
            "E2B_TEST_OTHER_HOST": OTHER_HOST,
        }
