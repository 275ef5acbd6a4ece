"""Files that settings name are read at start; an error names the setting."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.base.settings import Settings
from runner.cli.console import read_settings
from runner.network.roots import read_roots
from runner.node.named import read_named
from runner.words.errors import SetupError

BUNDLE = Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")


def written(folder: Path, data: bytes | str, mode: int = 0o600) -> Path:
    """Return a file with this content."""
    path = folder / "given"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    path.chmod(mode)
    return path


Given = Callable[[Path], Any]

FILES: dict[str, tuple[str, Given]] = {
    "roots that do not exist": ("egress_roots", lambda at: at / "none.pem"),
    "roots that are a folder": ("egress_roots", lambda at: at),
    "no roots at all": ("egress_roots", lambda at: written(at, "")),
    "roots that are text": ("egress_roots", lambda at: written(at, "trust me\n")),
    "roots that are bytes": ("egress_roots", lambda at: written(at, b"\xff\x00\x80")),
    "roots that are cut off": (
        "egress_roots", lambda at: written(at, "-----BEGIN CERTIFICATE-----\nMIIB\n"),
    ),
    "roots in place of their file": (
        "egress_roots", lambda _: Path("-----BEGIN CERTIFICATE-----\nMIIB\n" * 9),
    ),
    "roots without end": ("egress_roots", lambda _: Path("/dev/zero")),
    "secrets that do not exist": ("egress_secrets", lambda at: at / "none.toml"),
    "secrets that are a folder": ("egress_secrets", lambda at: at),
    "secrets that others may read": ("egress_secrets", lambda at: written(at, "", 0o644)),
    "secrets that are not TOML": ("egress_secrets", lambda at: written(at, "a = canary")),
    "secrets of nobody": ("egress_secrets", lambda at: written(at, 'token = "canary"')),
    "a key file that does not exist": ("secrets_key_file", lambda at: at / "none.kek"),
    "an empty key file": ("secrets_key_file", lambda at: written(at, "")),
    "a key file of another form": ("secrets_key_file", lambda at: written(at, "canary")),
    "profiles that do not exist": ("profiles_dir", lambda at: at / "none"),
    "a state folder that is a file": ("state_dir", lambda at: written(at, "")),
    "an object store of no kind": ("objects_url", lambda _: "nowhere"),
    "an object store of an unknown kind": ("objects_url", lambda _: "ftp://user:canary@host/"),
    "a host that is no name": ("egress_hosts", lambda _: {"a b": "127.0.0.1"}),
    "a webhook without TLS": ("audit_webhook_url", lambda _: "http://audit.example/"),
    "an empty webhook": ("audit_webhook_url", lambda _: ""),
    "a receiver without a port": ("audit_syslog_url", lambda _: "tcp://audit.example"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_what_cannot_be_used_is_told_by_its_setting(case: str, tmp_path: Path) -> None:
    """The error is one line without any secret. The control is a start without the setting."""
    name, make = FILES[case]
    fine: dict[str, Any] = {"state_dir": tmp_path / "state"}
    read_named(Settings(**fine))
    with pytest.raises(SetupError) as refused:
        read_named(Settings(**(fine | {name: make(tmp_path)})))
    assert f"RUNNER_{name.upper()}" in refused.value.detail
    assert "\n" not in refused.value.detail
    assert "canary" not in refused.value.detail


def test_the_systems_own_bundle_can_be_used(tmp_path: Path) -> None:
    """The complete bundle is used."""
    named = read_named(Settings(state_dir=tmp_path, egress_roots=BUNDLE))
    assert named.roots == BUNDLE.read_text()


TEXTS = {
    "IMAGES": ["python", "[]", '["../etc"]', '["python"'],
    "ISOLATION": ["[]", '["none"]', "gvisor"],
    "EGRESS_HOSTS": ["{", "[]", '{"a.example": "nowhere"}'],
    "EGRESS_TRUSTED_NETWORKS": ['["10.0.0.0/33"]', '["10.0.0.1/8"]', "10.0.0.0/8"],
    "AUDIT_TRUSTED_NETWORKS": ['["x"]'],
    "TRUSTED_PROXIES": ['["x"]', "10.0.0.0/8"],
    "DATABASE_API_URL": ["", "mysql://u:canary@h/d", "canary"],
    "DATABASE_WORKER_URL": [""],
    "REDIS_URL": ["http://:canary@h", "canary"],
    "DOCKER_URL": ["", "/var/run/docker.sock", "docker"],
    "OBJECTS_ENDPOINT": ["minio:9000", "http://", ""],
    "HOST": ["", "a b", "http://a"],
    "LEASE_S": ["inf", "nan", "1e300", "0"],
    "RETENTION_EVERY_S": ["inf", "0", "soon"],
    "DRAIN_S": ["inf"],
    "RATE_LIMITS": ["free", '{"free": 1}'],
    "OIDC_ROLES": ["admin", '{"a": "king"}'],
    "LOG_LEVEL": ["loud"],
}


@pytest.mark.parametrize("variable", TEXTS)
def test_a_value_of_another_form_is_told_by_its_variable(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not JSON, has another type, or exceeds a limit; the error does not repeat it."""
    for text in TEXTS[variable]:
        monkeypatch.setenv(f"RUNNER_{variable}", text)
        with pytest.raises(SetupError) as refused:
            read_settings()
        assert f"RUNNER_{variable}" in refused.value.detail, text
        assert "\n" not in refused.value.detail
        assert "canary" not in refused.value.detail


def test_text_that_is_not_json_is_told_how_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """This is the most frequent mistake."""
    monkeypatch.setenv("RUNNER_IMAGES", "python")
    with pytest.raises(SetupError, match=r'RUNNER_IMAGES: must be a JSON list, such as \["a"'):
        read_settings()


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    """The process is not root, because a mode does not stop root."""
    path = written(tmp_path, BUNDLE.read_bytes(), 0o000)
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        try:
            read_roots(path)
        except SetupError as error:
            told = error.detail
            os._exit(0 if "RUNNER_EGRESS_ROOTS" in told and "Permission denied" in told else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
