"""Checks of the worker's settings before anything is started, so that a fault is told at once.

A file that is missing, unreadable or of another form raises SetupError, which names the setting.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from runner.audit.sinks import Receivers, receivers
from runner.base.settings import Settings
from runner.egress.policy import Policy, load_ceiling
from runner.network.lookup import fixed_answers
from runner.network.roots import read_roots
from runner.node.runs.secrets import FileSecrets
from runner.quotas.sizes import DEFAULT_SIZE, load_sizes
from runner.secrets.keyring import KeyFile, KeyRing, open_keys
from runner.store.objects import ObjectStore
from runner.words.errors import SetupError
from runner.words.resources import Limits


@dataclass(frozen=True, slots=True)
class Named:
    """The settings' files, read, and the settings' addresses, understood."""

    objects: ObjectStore
    keys: KeyRing | KeyFile = field(repr=False)
    secrets: FileSecrets
    roots: str
    ceiling: Policy
    receivers: Receivers
    default_limits: Limits


def read_named(settings: Settings) -> Named:
    """Return what the settings name. Raises SetupError naming the setting that cannot be used."""
    _make_state_folder(settings.state_dir)
    fixed_answers(settings.egress_hosts)
    return Named(
        objects=ObjectStore.open(settings),
        keys=open_keys(settings),
        secrets=FileSecrets(settings.egress_secrets),
        roots=read_roots(settings.egress_roots),
        ceiling=load_ceiling(settings.profiles_path),
        receivers=receivers(settings),
        default_limits=load_sizes(settings.profiles_path)[DEFAULT_SIZE],
    )


def _make_state_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"RUNNER_STATE_DIR: {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SetupError(f"RUNNER_STATE_DIR: {folder} may not be written to")
