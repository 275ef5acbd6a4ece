"""The production-like deployment: who holds what, and the scripts that prepare it."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from pydantic import SecretStr

from runner.base.settings import Settings
from runner.embedded import postgres
from runner.embedded.process import service_user
from runner.embedded.services import services
from runner.secrets.keyring import KeyRing
from runner.store.migrations import migrate
from tests.support.deployment import state_folder

ROOT = Path(__file__).resolve().parents[2]
OURS = {"migrate", "api", "operator", "worker", "backup"}
SUPERUSER = "runner_database_superuser_url"
OPERATOR = "runner_database_operator_url"
APIS = {"api": 8080, "operator": 8081}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Return the compose file's services."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return found


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Return a folder of fresh secrets."""
    folder = tmp_path / "secrets"
    subprocess.run([ROOT / "deploy" / "make-secrets", folder], check=True, timeout=20)
    return folder


def mounts(service: dict[str, Any]) -> Iterator[str]:
    """Yield the parts of the host that a service sees."""
    for volume in service.get("volumes", ()):
        yield volume["source"] if isinstance(volume, dict) else volume.split(":")[0]


def test_only_the_worker_reaches_docker(compose: dict[str, Any]) -> None:
    holders = {name for name, each in compose.items() if "/var/run/docker.sock" in mounts(each)}
    assert holders == {"worker"}


def test_the_apis_alone_reach_the_workers_door(compose: dict[str, Any]) -> None:
    """The worker and backups have the whole state folder, in which the door is."""
    state = Path("/var/lib/agent-runner")
    door = str(Settings(state_dir=state).door_dir)
    assert {name for name, each in compose.items() if door in mounts(each)} == set(APIS)
    assert {name for name, each in compose.items() if str(state) in mounts(each)} == {
        "worker",
        "backup",
    }
    for name in APIS:
        (volume,) = (
            each
            for each in compose[name]["volumes"]
            if isinstance(each, dict) and each["source"] == door
        )
        assert (volume["target"], volume["read_only"]) == (door, True)


def test_only_the_apis_listen_and_on_loopback_alone(compose: dict[str, Any]) -> None:
    """And what shows traces, if somebody asks for it."""
    published = {name: each["ports"] for name, each in compose.items() if "ports" in each}
    assert published.pop("jaeger") == ["127.0.0.1:16686:16686"]
    assert published == {name: [f"127.0.0.1:{port}:8080"] for name, port in APIS.items()}
    assert {name for name, each in compose.items() if "front" in each["networks"]} == set(APIS)


def test_the_api_that_can_delete_tenants_runs_on_request_only(compose: dict[str, Any]) -> None:
    able = {name for name, each in compose.items() if OPERATOR in each.get("secrets", ())}
    assert able == {"migrate", "operator", "backup"}
    assert compose["operator"].get("profiles") == ["operator"]


def test_what_shows_traces_runs_on_request_only_and_reaches_no_data(
    compose: dict[str, Any],
) -> None:
    shown = compose["jaeger"]
    assert shown["profiles"] == ["tracing"]
    assert {"data", "front", "out"}.isdisjoint(shown["networks"])
    assert "secrets" not in shown
    told = {name for name, each in compose.items() if "traces" in each["networks"]}
    assert told == {"jaeger", "worker", *APIS}


def test_a_backup_alone_logs_in_as_a_superuser_and_runs_on_request_only(
    compose: dict[str, Any],
) -> None:
    """It has no network but the database's, and does not wait for a schema."""
    assert {n for n, each in compose.items() if SUPERUSER in each.get("secrets", ())} == {"backup"}
    backup = compose["backup"]
    assert (backup["profiles"], backup["networks"]) == (["backup"], ["data"])
    assert list(backup["depends_on"]) == ["postgres"]


def test_each_process_of_ours_reads_the_settings_in_one_file(compose: dict[str, Any]) -> None:
    given = {name: each["env_file"] for name, each in compose.items() if "env_file" in each}
    assert given == {name: [{"path": ".env", "required": False}] for name in OURS}


def test_each_process_of_ours_has_the_least_privileges(compose: dict[str, Any]) -> None:
    for name in OURS:
        assert compose[name]["read_only"] is True
        assert compose[name]["cap_drop"] == ["ALL"]
        assert compose[name]["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in compose[name]
    assert "USER 10000:10000" in (ROOT / "Dockerfile").read_text()


def test_each_process_is_given_the_one_login_that_is_its_own(compose: dict[str, Any]) -> None:
    shared = ["runner_redis_url", "runner_secrets_key"]
    assert compose["api"]["secrets"] == ["runner_database_api_url", *shared]
    assert compose["worker"]["secrets"] == ["runner_database_worker_url", *shared]


def test_the_key_of_tenants_secrets_is_one(secrets: Path) -> None:
    ring = KeyRing.parse((secrets / "runner_secrets_key").read_text(), "the file")
    assert len(ring.keys) == 1


def test_every_variable_and_secret_is_a_setting(compose: dict[str, Any], secrets: Path) -> None:
    known = {f"RUNNER_{name.upper()}" for name in Settings.model_fields}
    for name in OURS:
        given = [*compose[name].get("environment", {}), *map(str.upper, compose[name]["secrets"])]
        assert set(given) <= known
    used = {secret for each in compose.values() for secret in each.get("secrets", ())}
    assert used == {path.name for path in secrets.iterdir()}


def test_secrets_are_fresh_private_and_never_overwritten(secrets: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    for folder in (secrets, tmp_path / "other"):
        subprocess.run(
            [ROOT / "deploy" / "make-secrets", folder], check=True, timeout=20, capture_output=True
        )
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    other = {path.name: path.read_text() for path in (tmp_path / "other").iterdir()}
    assert all(other[name] != text for name, text in before.items())


def test_the_entrypoint_hands_secret_files_to_its_process_alone(secrets: Path) -> None:
    done = subprocess.run(
        [ROOT / "deploy" / "entrypoint", "printenv", "RUNNER_REDIS_URL"],
        env={"PATH": os.defpath, "SECRETS_DIR": str(secrets)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout.strip() == (secrets / "runner_redis_url").read_text()


def test_the_database_is_prepared_for_migration_by_an_owner_without_power(secrets: Path) -> None:
    with state_folder() as folder, services(folder, ephemeral=True) as running:
        superuser = running.postgres.url("postgres", "postgres")
        with psycopg.connect(superuser, autocommit=True) as connection:
            connection.execute("DROP DATABASE runner")
            connection.execute("DROP ROLE runner_owner")
        subprocess.run(
            [ROOT / "deploy" / "postgres-init"],
            env={
                "PATH": f"{postgres._binaries(service_user())}:{os.defpath}",
                "PGHOST": str(Path(running.redis_url.removeprefix("unix://")).parent),
                "POSTGRES_USER": "postgres",
                "SECRETS_DIR": str(secrets),
            },
            check=True,
            timeout=30,
        )
        logins = [
            SecretStr((secrets / f"runner_database_{name}_url").read_text())
            for name in ("operator", "api", "worker")
        ]
        migrate(SecretStr(running.owner_url), *logins)
        with psycopg.connect(superuser) as connection:
            roles = connection.execute(
                "SELECT rolname, rolsuper OR rolbypassrls, rolpassword LIKE 'SCRAM-SHA-256$%%' "
                "FROM pg_authid WHERE rolname LIKE 'runner%%' AND rolcanlogin ORDER BY 1", []
            ).fetchall()  # fmt: skip
        assert roles == [
            ("runner_api", False, True),
            ("runner_operator", False, True),
            ("runner_owner", False, True),
            ("runner_worker", False, True),
        ]
