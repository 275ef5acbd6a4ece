"""A caller's order of a run, given by names, and how the names become values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from runner.quotas.sizes import DEFAULT_SIZE
from runner.sandboxes.catalogue import SandboxOffer, listed
from runner.tenants.policies import Entry
from runner.words.errors import Invalid
from runner.words.execution import ExecutionRequest, InputFile, Program, RunSpec, StoredObject
from runner.words.resources import OutputKeep
from runner.words.sandbox import Isolation, SandboxSpec

CODE_FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "python": ("main.py", ("python3", "main.py")),
    "bash": ("main.sh", ("bash", "main.sh")),
    "javascript": ("main.js", ("node", "main.js")),
    "typescript": ("main.ts", ("typescript", "main.ts")),
}
"""By language: the file that `code` is written to, and the command that runs it."""


@dataclass(frozen=True, slots=True)
class ByKey:
    """A stored file of the tenant, as it is when the order is submitted."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A program to run: `code` in a `language`, or a `command`.

    Sizes, images, policies and stored files are given by name. None means that it was left out.
    """

    code: str | None = None
    language: str | None = None
    command: tuple[str, ...] = ()
    stdin: bytes = b""
    files: Mapping[str, bytes | ByKey] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    artifacts_to: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, str] = field(default_factory=dict)
    size: str | None = None
    """None for the default one, with what its template needs."""
    limits: Mapping[str, float] = field(default_factory=dict)
    output_keep: OutputKeep = "head"
    image: str | None = None
    isolation: Isolation | None = None
    loaded: bool = True
    """Whether an interpreter that is already loaded may run the code."""
    reuse: bool = False
    egress: tuple[Entry, ...] = ()
    egress_policy: str | None = None
    project: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    on_worker_loss: Literal["fail", "retry"] = "fail"

    @property
    def keys(self) -> frozenset[str]:
        """The names of the stored files that it uses."""
        return frozenset(each.key for each in self.files.values() if isinstance(each, ByKey))


@dataclass(frozen=True, slots=True)
class Offer:
    """The means of this deployment, and the part of them that this tenant may use."""

    sandbox: SandboxOffer
    reuse: bool = False
    """Whether the tenant may reuse sandboxes."""
    stored: Mapping[str, StoredObject] = field(default_factory=dict)
    """The stored files that the order names and the tenant has."""


def resolve(order: Order, offer: Offer) -> ExecutionRequest:
    """Return the order with values in place of names. Raises Invalid with `field` set."""
    base = offer.sandbox
    image = base.image(order.image)
    # What a template can run, only its build knows.
    can = base.images.get(image) if base.template is None else None
    if order.language is not None and can is not None and order.language not in can:
        raise Invalid(
            f"the image {image!r} cannot run {order.language}; it runs {listed(can)}", "language"
        )
    size = order.size or DEFAULT_SIZE
    limits = base.limits(base.size(size), order.limits, named=order.size is not None)
    files = [InputFile(path, _content(path, each, offer)) for path, each in order.files.items()]
    argv, env = order.command, dict(base.environment(order.env, order.secret_env))
    if order.code is not None and order.language is not None:
        name, argv = CODE_FILES[order.language]
        files.append(InputFile(name, order.code.encode()))
    if order.language == "python":
        # Unbuffered, so that output reaches the event stream as soon as it is written.
        env.setdefault("PYTHONUNBUFFERED", "1")
    if sum(file.size for file in files) > limits.disk_mb * 2**20:
        raise Invalid(f"the files do not fit into disk_mb {limits.disk_mb}", "files")
    program = Program(
        argv=argv,
        env=env,
        stdin=order.stdin,
        interpret=order.language == "python" and order.loaded,
    )
    return ExecutionRequest(
        SandboxSpec(image, limits.resources, base.isolation(order.isolation)),
        RunSpec(
            program,
            replace(limits.bounds, output_keep=order.output_keep),
            tuple(files),
            order.secret_env,
            order.artifacts,
        ),
        size=size,
        egress=base.egress(order.egress, order.egress_policy),
        egress_policy=order.egress_policy,
        metadata=order.metadata,
        on_worker_loss=order.on_worker_loss,
        reuse=_reuse(order, offer),
        language=order.language,
        project=order.project,
        artifacts_to=order.artifacts_to,
    )


def _content(path: str, given: bytes | ByKey, offer: Offer) -> bytes | StoredObject:
    if isinstance(given, bytes):
        return given
    if given.key not in offer.stored:
        raise Invalid(f"there is no file {given.key!r}", f"files.{path}.key")
    return offer.stored[given.key]


def _reuse(order: Order, offer: Offer) -> bool:
    if order.reuse and not offer.reuse:
        raise Invalid(
            "this tenant's terms do not permit reuse; the operator can change them", "reuse"
        )
    return order.reuse
