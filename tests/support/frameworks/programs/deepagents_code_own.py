"""Deep Agents Code finds our provider by its entry point, and makes and ends sandboxes with it."""

import os
from pathlib import Path

import pytest
from deepagents_code.integrations.sandbox_factory import create_sandbox
from deepagents_code.integrations.sandbox_provider import SandboxNotFoundError
from deepagents_code.integrations.sandbox_registry import SandboxRegistry

from agent_runner import Client
from agent_runner.integrations.deepagents_code import RunnerProvider

NAME = "agent-runner"
NANO = {"size": "nano"}


def test_the_provider_is_found_and_described() -> None:
    registry = SandboxRegistry.load()
    assert NAME in registry.available_providers()
    told = registry.get_metadata(NAME)
    assert told is not None
    assert (told.name, told.working_dir) == (NAME, "/workspace")


def test_the_pages_configuration_is_understood() -> None:
    registry = SandboxRegistry.load(Path(os.environ["PAGE_CONFIG"]))
    assert isinstance(registry.create_provider(NAME), RunnerProvider)
    assert registry.get_params(NAME) == {"size": "medium", "timeout_s": 7200}
    told = registry.get_metadata(NAME)
    assert told is not None
    assert told.supports_snapshot_name


def test_a_session_has_a_sandbox_and_ends_it() -> None:
    with Client() as api:
        with create_sandbox(NAME, params=NANO) as backend:
            assert backend.execute("pwd").output == "/workspace\n"
            assert not api.sandboxes.get(backend.id).info.ended
        assert api.sandboxes.get(backend.id).info.ended


def test_a_session_takes_up_a_sandbox_and_leaves_it() -> None:
    with Client() as api, api.sandboxes.create(size="nano") as sandbox:
        sandbox.files.write("kept.txt", "here")
        with create_sandbox(NAME, sandbox_id=sandbox.id) as backend:
            assert backend.execute("cat kept.txt").output == "here"
        assert not sandbox.refresh().ended


def test_a_session_begins_with_a_snapshot() -> None:
    with Client() as api, api.sandboxes.create(size="nano") as sandbox:
        sandbox.files.write("kept.txt", "here")
        snapshot = sandbox.snapshot(expires_s=600)
        try:
            with create_sandbox(NAME, snapshot_name=snapshot.id) as backend:
                assert backend.execute("cat kept.txt").output == "here"
        finally:
            api.snapshots.delete(snapshot.id)


def test_a_sandbox_that_does_not_live_is_not_found() -> None:
    provider = SandboxRegistry.load().create_provider(NAME)
    backend = provider.get_or_create(**NANO)
    provider.delete(sandbox_id=backend.id)
    for each in (backend.id, "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"):
        with pytest.raises(SandboxNotFoundError):
            provider.get_or_create(sandbox_id=each)
        with pytest.raises(SandboxNotFoundError):
            provider.delete(sandbox_id=each)
