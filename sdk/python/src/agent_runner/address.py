"""The deployment's address and the key: as given, or from the environment."""

import os

URL = "RUNNER_URL"
API_KEY = "RUNNER_API_KEY"


def address(url: str | None, api_key: str | None) -> tuple[str, str]:
    """Return an address and a key, each as given or from the environment. Raises ValueError."""
    url, api_key = url or os.environ.get(URL), api_key or os.environ.get(API_KEY)
    if not url:
        raise ValueError(f"no address of a deployment: give `url`, or set {URL}")
    if not api_key:
        raise ValueError(f"no API key: give `api_key`, or set {API_KEY}")
    return url, api_key
