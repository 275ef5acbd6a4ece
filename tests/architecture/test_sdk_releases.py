"""An SDK works with servers that are older or newer than it: what answers add is not demanded."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, make_dataclass
from pathlib import Path
from typing import Any

import pytest

import agent_runner
from agent_runner import living, runs, types
from agent_runner.answers import made
from agent_runner.living_answers import SANDBOX
from tests.unit.client.test_strangers import LIVES

PACKAGE = Path(agent_runner.__file__).parent
DEMANDED: Mapping[str, str] = {
    "ApiKey": "created_at created_by expires_at id last_used_at name networks permissions prefix "
    "replaced_by revoked_at role",
    "Artifact": "media_type path sha256 size",
    "BuildOutput": "at seq text",
    "ContextInfo": "context created_at cwd language state",
    "FileEntry": "kind mode modified_at path size target",
    "Member": "created_at created_by email expires_at id role status",
    "OpenedPort": "expires_at opened_at opened_by port public token url",
    "PortInfo": "expires_at opened_at opened_by port public url",
    "ProcessInfo": "command ended_at exit_code output_bytes process signal started_at state stdin "
    "tag terminal timed_out",
    "Project": "created_at created_by description egress_policy name updated_at",
    "SandboxInfo": "auto_resume created_at detail egress egress_policy ended_at expires_at id "
    "image isolation limits lives_until metadata on_timeout project reason size started_at state "
    "timeout_s",
    "SignedUrl": "expires_at operation path url",
    "SnapshotInfo": "created_at expires_at id image isolation limits metadata name sandbox sha256 "
    "size size_bytes",
    "StoredFile": "created_at etag expires_at media_type path sha256 size updated_at",
    "TemplateInfo": "base created_at created_by detail ended_at env id image name sha256 "
    "size_bytes state steps tag",
    "TemplateTag": "assigned_at tag template_id",
}
"""The fields of each answer in every release. Never add one to a row: give it a default instead."""


def needed(kind: type) -> set[str]:
    """Return the fields that a dataclass demands."""
    return {
        each.name
        for each in fields(kind)
        if each.default is MISSING and each.default_factory is MISSING
    }


def kinds() -> Iterator[type]:
    """Yield each dataclass that an answer is made into, as the SDK's source says."""
    for path in (PACKAGE / name for name in ("answers.py", "living_answers.py", "runs.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name("made"), args=[ast.Name(name)]):
                    yield next(
                        vars(module)[name]
                        for module in (types, living, runs)
                        if name in vars(module)
                    )


def added(kind: type, demanded: Mapping[str, str]) -> set[str]:
    """Return what a dataclass demands beyond its row."""
    return needed(kind) - set(demanded[kind.__name__].split())


def test_no_answer_demands_what_an_older_server_does_not_send() -> None:
    found = set(kinds())
    assert {each.__name__ for each in found} == DEMANDED.keys()
    assert {each.__name__: added(each, DEMANDED) for each in found if added(each, DEMANDED)} == {}


def test_the_probe_sees_a_field_without_a_default() -> None:
    """The control: the same field with a default passes."""
    old, new = {"Grown": "id"}, ("colour", str)
    assert added(make_dataclass("Grown", [("id", str), new]), old) == {"colour"}
    assert added(make_dataclass("Grown", [("id", str), (*new, "blue")]), old) == set()


@pytest.mark.parametrize("name", DEMANDED)
def test_an_answer_of_another_release_is_read(name: str) -> None:
    """An older server lacks what has a default; a newer one sends more."""
    (kind,) = {each for each in kinds() if each.__name__ == name}
    older = dict.fromkeys(needed(kind), "told")
    read: Any = made(kind)(older)
    assert {field: getattr(read, field) for field in older} == older
    assert made(kind)({**older, "from_the_future": 1}) == read
    for missing in older:
        with pytest.raises(KeyError, match=missing):
            made(kind)({field: told for field, told in older.items() if field != missing})


def test_what_a_newer_server_sends_is_not_lost_to_a_default() -> None:
    @dataclass(frozen=True)
    class Grown:
        id: str
        colour: str = "blue"

    assert made(Grown)({"id": "1", "colour": "red"}) == Grown("1", "red")
    assert made(Grown)({"id": "1"}) == Grown("1")


def test_a_sandbox_of_a_server_without_snapshots_on_shortage_is_read() -> None:
    """Such a server keeps a paused sandbox, which is what the default says."""
    older = {name: told for name, told in LIVES.items() if name not in {"on_shortage", "kept_as"}}
    read = SANDBOX.read(older)
    assert (read.on_shortage, read.kept_as) == ("keep", None)
    assert SANDBOX.read({**LIVES, "on_shortage": "snapshot"}).on_shortage == "snapshot"
