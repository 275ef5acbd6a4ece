"""A URL of a service that cannot work ends the start; one that trusts everybody is told."""

from pathlib import Path

import pytest

from runner.base.settings import Settings
from runner.cli.credentials import require_sound, weaknesses
from runner.cli.service_urls import ServiceUrl
from runner.words.errors import SetupError
from tests.support.upstreams import Authority

STRONG = "f3a1c9e07b52d864f3a1c9e07b52d864"
POSTGRES = f"postgresql://u:{STRONG}@db.example.com/runner"
OTHER = f"postgresql://w:{STRONG}@db.example.com/runner"
REDIS = f"rediss://u:{STRONG}@cache.example.com:6379/0"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return Authority(tmp_path).path


def test_urls_that_name_the_authority_are_sound(authority: Path, tmp_path: Path) -> None:
    given = Settings(
        state_dir=tmp_path / "state",
        database_api_url=f"{POSTGRES}?sslmode=verify-full&sslrootcert={authority}",
        database_worker_url=f"{OTHER}?sslmode=verify-full&sslrootcert=system",
        redis_url=f"{REDIS}?ssl_ca_certs={authority}",
    )
    require_sound(given)
    assert weaknesses(given) == []


@pytest.mark.parametrize(
    ("setting", "url", "why"),
    [
        ("database_api_url", f"{POSTGRES}?sslmode=verify-ful", "sslmode='verify-ful'"),
        ("database_api_url", f"{POSTGRES}?sslrootcert=/nowhere/ca.pem", "/nowhere/ca.pem"),
        ("database_worker_url", f"{POSTGRES}?sslkey=/nowhere/key.pem", "/nowhere/key.pem"),
        ("redis_url", f"{REDIS}?ssl_ca_certs=/nowhere/ca.pem", "/nowhere/ca.pem"),
        ("redis_url", f"{REDIS}?ssl_ca_certs=/dev/null", "holds no certificate"),
        ("redis_url", f"{REDIS}?sslrootcert=/dev/null", "'sslrootcert'"),
        ("redis_url", f"{REDIS}?socket_timeout=600", "'socket_timeout'"),
        ("redis_url", f"{REDIS.replace('ss:', 's:')}?ssl_ca_certs=/dev/null", "needs rediss://"),
    ],
)
def test_a_url_that_cannot_work_ends_the_start(
    tmp_path: Path, setting: str, url: str, why: str
) -> None:
    with pytest.raises(SetupError) as refused:
        require_sound(Settings(state_dir=tmp_path, **{setting: url}))  # type: ignore[arg-type]
    assert f"RUNNER_{setting.upper()}" in refused.value.detail
    assert why in refused.value.detail
    assert STRONG not in refused.value.detail


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
def test_tls_that_trusts_everybody_is_told(tmp_path: Path, option: str) -> None:
    """Even for a host without a dot: whoever wrote the option has meant something by it."""
    given = Settings(state_dir=tmp_path, redis_url=f"{REDIS.replace('.example.com', '')}?{option}")
    (weak,) = weaknesses(given)
    assert (weak.where, weak.fatal) == ("RUNNER_REDIS_URL", False)
    assert option.partition("=")[0] in weak.what


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (f"postgresql://u:{STRONG}@/runner?host=db.example.com", True),
        (f"postgresql://u:{STRONG}@localhost/runner?host=db.example.com", True),
        (f"postgresql://u:{STRONG}@localhost/runner?hostaddr=192.0.2.1", True),
        (f"postgresql://u:{STRONG}@localhost:5432,db.example.com:5432/runner", True),
        (f"postgresql://u:{STRONG}@db.example.com/runner?host=localhost", False),
        ("postgresql://u@db.example.com/runner?host=/run/postgresql", False),
        ("postgresql://u@/runner", False),
    ],
)
def test_the_host_is_the_one_that_libpq_connects_to(tmp_path: Path, url: str, told: bool) -> None:
    """It may be among the options, and there may be several."""
    found = weaknesses(Settings(state_dir=tmp_path, database_api_url=url))
    assert [each.what for each in found] == (
        ["may go over the network unencrypted, or to somebody else"] if told else []
    )


@pytest.mark.parametrize("name", ["postgres", "123456"])
def test_a_password_among_the_options_counts(tmp_path: Path, name: str) -> None:
    given = Settings(
        state_dir=tmp_path, database_api_url=f"postgresql://u@localhost/runner?password={name}"
    )
    with pytest.raises(SetupError, match="everybody knows"):
        require_sound(given)


@pytest.mark.parametrize(
    ("url", "verified"),
    [
        (POSTGRES, False),
        (f"{POSTGRES}?sslmode=require", False),
        (f"{POSTGRES}?sslmode=verify-ca", True),
        (f"{POSTGRES}?sslmode=verify-full", True),
        (REDIS, True),
        (f"{REDIS}?ssl_cert_reqs=none", False),
        (REDIS.replace("rediss", "redis"), False),
    ],
)
def test_only_what_checks_the_other_end_counts_as_verified(url: str, verified: bool) -> None:
    assert ServiceUrl.read(url).is_verified is verified
