"""What a caller wants run, by names, and what it becomes where it is to run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from runner.egress.policy import Policy, Rule, rule_to_json
from runner.quotas.sizes import DEFAULT_SIZE, resolve_limits
from runner.tenants.policies import Entry, permitted
from runner.words.errors import Invalid
from runner.words.execution import ExecutionRequest, InputFile, Program, RunSpec, StoredObject
from runner.words.resources import Limits, OutputKeep
from runner.words.sandbox import Isolation, SandboxSpec

CODE_FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "python": ("main.py", ("python3", "main.py")),
    "bash": ("main.sh", ("bash", "main.sh")),
    "javascript": ("main.js", ("node", "main.js")),
}
"""By language: what `code` is placed as, and the command that runs it."""


@dataclass(frozen=True, slots=True)
class ByKey:
    """A stored file of the tenant, as it is at submission."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A program to run: `code` in a `language`, or a `command`.

    Sizes, images, policies and stored files are named, and what is None was left out.
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
    size: str = DEFAULT_SIZE
    limits: Mapping[str, float] = field(default_factory=dict)
    output_keep: OutputKeep = "head"
    image: str | None = None
    isolation: Isolation | None = None
    loaded: bool = True
    """Whether a loaded interpreter may run the code."""
    reuse: bool = False
    egress: tuple[Entry, ...] = ()
    egress_policy: str | None = None
    project: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    on_worker_loss: Literal["fail", "retry"] = "fail"

    @property
    def keys(self) -> frozenset[str]:
        """The names of the stored files that it takes."""
        return frozenset(each.key for each in self.files.values() if isinstance(each, ByKey))


@dataclass(frozen=True, slots=True)
class Offer:
    """What this deployment has, and what this tenant may have of it."""

    sizes: Mapping[str, Limits]
    images: Mapping[str, frozenset[str]]
    """The languages that each image can run; the first image is the default."""
    isolations: tuple[Isolation, ...]
    max_limits: Limits
    required_isolation: Isolation | None
    egress_ceilings: tuple[Policy, ...]
    """The deployment's, and the tenant's own if it has one: a rule must be within each."""
    egress_policy: tuple[Rule, ...] | None = None
    """The rules of the policy that the order names; None if the tenant has none of that name."""
    reuse: bool = False
    """Whether the tenant may have sandboxes that serve it again."""
    stored: Mapping[str, StoredObject] = field(default_factory=dict)
    """Of the stored files that the order names, those that the tenant has."""


def resolve(order: Order, offer: Offer) -> ExecutionRequest:
    """Return the order with numbers for names. Raises Invalid naming the field."""
    sizes, images = offer.sizes, offer.images
    if order.size not in sizes:
        raise Invalid(f"there is no size {order.size!r}; choose one of {_list(sizes)}", "size")
    image = order.image or next(iter(images))
    if image not in images:
        raise Invalid(f"there is no image {image!r}; choose one of {_list(images)}", "image")
    if order.language is not None and order.language not in images[image]:
        raise Invalid(
            f"the image {image!r} cannot run {order.language}; it runs {_list(images[image])}",
            "language",
        )
    limits = resolve_limits(sizes[order.size], order.limits, offer.max_limits)
    files = [InputFile(path, _content(path, each, offer)) for path, each in order.files.items()]
    argv, env = order.command, dict(order.env)
    if order.code is not None and order.language is not None:
        name, argv = CODE_FILES[order.language]
        files.append(InputFile(name, order.code.encode()))
    if order.language == "python":
        # Output reaches the event stream when it is written, not when a buffer is full.
        env.setdefault("PYTHONUNBUFFERED", "1")
    if sum(file.size for file in files) > limits.disk_mb * 2**20:
        raise Invalid(f"the files do not fit into disk_mb {limits.disk_mb}", "files")
    if order.egress_policy is not None and offer.egress_policy is None:
        raise Invalid(f"there is no egress policy {order.egress_policy!r}", "egress_policy")
    own = permitted(order.egress, offer.egress_ceilings, field="egress")
    rules = dict.fromkeys([*own, *(offer.egress_policy or ())])
    program = Program(
        argv=argv,
        env=env,
        stdin=order.stdin,
        interpret=order.language == "python" and order.loaded,
    )
    return ExecutionRequest(
        SandboxSpec(image, limits.resources, _isolation(order, offer)),
        RunSpec(
            program,
            replace(limits.bounds, output_keep=order.output_keep),
            tuple(files),
            order.secret_env,
            order.artifacts,
        ),
        size=order.size,
        egress=tuple(rule_to_json(rule) for rule in rules),
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


def _isolation(order: Order, offer: Offer) -> Isolation:
    required = offer.required_isolation
    wanted = order.isolation or required or offer.isolations[0]
    if required and wanted is not required:
        raise Invalid(f"this tenant's executions must use {required.value}", "isolation")
    if wanted not in offer.isolations:
        raise Invalid(
            f"this deployment does not offer {wanted.value}; "
            f"it offers {', '.join(offer.isolations)}",
            "isolation",
        )
    return wanted


def _reuse(order: Order, offer: Offer) -> bool:
    if order.reuse and not offer.reuse:
        raise Invalid(
            "this tenant's terms do not permit reuse; the operator can change them", "reuse"
        )
    return order.reuse


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
