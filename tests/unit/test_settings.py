"""Settings are refused if they contradict each other, or would reveal something."""

from typing import Any

import pytest
from pydantic import ValidationError

from runner.base.forms import is_trustworthy
from runner.base.settings import Settings

OIDC = {"oidc_issuer": "https://login.example", "oidc_audience": "runner"}
BACK = "/v1/login/oidc/callback"
CLIENT = {
    **OIDC, "oidc_members": True, "oidc_client_id": "console",
    "oidc_callback": f"https://runner.example{BACK}",
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"insecure_cookies": True, "host": "0.0.0.0"}, {"insecure_cookies": True}),  # noqa: S104
        ({"insecure_cookies": True, "host": "192.0.2.1"}, {"host": "192.0.2.1"}),
        ({**OIDC, "oidc_issuer": "http://login.example"}, OIDC),
        ({**OIDC, "oidc_issuer": "https://login.example?a=b"}, OIDC),
        ({"oidc_issuer": "https://login.example"}, {**OIDC, "oidc_roles": {"chiefs": "admin"}}),
        ({**OIDC, "oidc_roles": {"chiefs": "superuser"}}, {**OIDC, "host": "::"}),
        ({**OIDC, "oidc_issuer": "http://127.0.0.1.evil.example"}, {
            **OIDC, "oidc_issuer": "http://127.0.0.1:9000",
        }),
        ({"mcp_resource": "https://runner.example/mcp"}, {
            **OIDC, "mcp_resource": "https://runner.example/mcp",
        }),
        ({**OIDC, "mcp_resource": "http://runner.example/mcp"}, {
            **OIDC, "mcp_resource": "http://127.0.0.1:8080/mcp",
        }),
        ({**OIDC, "mcp_resource": "https://runner.example/mcp/"}, OIDC),
        ({**OIDC, "mcp_resource": "https://runner.example/mcp?a=b"}, OIDC),
        ({**OIDC, "mcp_resource": "https://user@runner.example/mcp"}, OIDC),
        ({**OIDC, "mcp_resource": 'https://runner.example"/mcp'}, OIDC),
        ({**CLIENT, "oidc_members": False}, CLIENT),
        ({**CLIENT, "oidc_callback": None}, {**CLIENT, "oidc_client_secret": "x"}),
        ({**CLIENT, "oidc_issuer": None, "oidc_audience": None}, {**CLIENT, "oidc_name": "SSO"}),
        ({**OIDC, "oidc_client_secret": "x"}, OIDC),
        ({**CLIENT, "oidc_callback": f"http://runner.example{BACK}"}, {
            **CLIENT, "oidc_callback": f"http://127.0.0.1:8080{BACK}",
        }),
        ({**CLIENT, "oidc_callback": f"https://runner.example{BACK}?a=b"}, CLIENT),
        ({**CLIENT, "oidc_callback": "https://runner.example/console"}, CLIENT),
        ({**CLIENT, "oidc_client_id": "caf\u00e9"}, CLIENT),
        ({"traces_headers": '["a"]'}, {"traces_headers": '{"Authorization": "Basic eA=="}'}),
        ({"traces_headers": '{"a": 1}'}, {"traces_headers": '{"a": "1"}'}),
        ({"traces_headers": '{"a\\r\\nb": "1"}'}, {"traces_headers": "{}"}),
        ({"traces_headers": '{"a": "1\\r\\nb: 2"}'}, {"traces_headers": '{"a": "1 b: 2"}'}),
        ({"traces_url": "collector:4318"}, {"traces_url": "http://collector:4318/v1/traces"}),
        ({"librechat": True}, {"librechat": True, "images": ("python", "librechat")}),
    ],
)  # fmt: skip
def test_only_sound_settings_are_taken(wrong: dict[str, Any], right: dict[str, Any]) -> None:
    """Each is tried beside one that differs in only this point."""
    with pytest.raises(ValidationError):
        Settings(**wrong)
    Settings(**right)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://login.example/keys", True),
        ("http://localhost:1/keys", True),
        ("http://[::1]/keys", True),
        ("http://login.example/keys", False),
        ("http://localhost.evil.example/", False),
        ("https:///keys", False),
        ("file:///etc/passwd", False),
        ("", False),
    ],
)
def test_what_nobody_on_the_way_can_change(url: str, expected: bool) -> None:
    assert is_trustworthy(url) is expected
