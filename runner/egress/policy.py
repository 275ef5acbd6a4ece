"""The destinations that a sandbox may reach: rules, budgets, and the operator's ceiling above them.

Everything that no rule permits is denied. An empty policy denies everything, and so does a ceiling
that is missing or empty.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from runner.network.names import BadName, address_in, normalise
from runner.words.errors import Invalid, SetupError

Scheme = Literal["https", "http", "tcp"]
PORTS: Mapping[str, int] = {"https": 443, "http": 80}
ANY = "*"

_FIELD_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_UNSETTABLE = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"}
)


@dataclass(frozen=True, slots=True)
class Inject:
    """A header that the proxy sets, with a secret that the sandbox never holds."""

    header: str
    secret: str
    prefix: str = ""

    def value(self, secrets: Mapping[str, str]) -> str | None:
        """Return the header's value; None if the secret has characters that no header may hold."""
        value = self.prefix + secrets[self.secret]
        return value if _FIELD_VALUE.fullmatch(value) else None


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that may be reached.

    `host` is a normalised name, an address (which matches only if the client asks for the address),
    `*.` and a suffix for every name below it, or `*` (in a ceiling) for every name.
    """

    host: str
    port: int
    scheme: Scheme = "https"
    methods: tuple[str, ...] = ()
    path_prefix: str = ""
    inject: Inject | None = None

    @property
    def name(self) -> str:
        """The rule in a client's spelling, as a refusal suggests it to the agent."""
        shown = f"{self.host}:{self.port}"
        if self.scheme == "tcp":
            return f"tcp://{shown}"
        bare = self.host if self.port == PORTS[self.scheme] else shown
        return bare if self.scheme == "https" else f"http://{bare}"

    @property
    def intercepts(self) -> bool:
        """Whether the proxy must see inside TLS to enforce this rule."""
        return self.scheme == "https" and bool(self.methods or self.path_prefix or self.inject)

    def matches(self, host: str, port: int) -> bool:
        """Return whether this rule is for a normalised host and a port."""
        return port == self.port and self.covers(host)

    def covers(self, host: str) -> bool:
        """Return whether this rule is for a normalised host, at any port."""
        return _covers(self.host, host)


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules with the budgets of one execution. `max_bytes` counts both directions."""

    rules: tuple[Rule, ...] = ()
    max_connections: int = 1000
    max_concurrent: int = 64
    max_bytes: int = 1024 * 2**20

    def hash(self) -> str:
        """Return `sha256:` and the digest of the policy's canonical JSON (RFC 8785)."""
        return "sha256:" + hashlib.sha256(rfc8785.dumps(policy_to_json(self))).hexdigest()


def parse_rule(value: str | Mapping[str, Any]) -> Rule:
    """Return the complete rule for what a client wrote.

    A text is `host`, `host:port`, `http://host` or `tcp://host:port`. Raises Invalid.
    """
    fields = _from_text(value) if isinstance(value, str) else dict(value)
    try:
        written = _Written.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _invalid(f"{where}: {first['msg']}") from None
    port = written.port or PORTS.get(written.scheme)
    if port is None:
        raise _invalid("a tcp rule needs a port")
    if written.scheme == "tcp" and (written.methods or written.path_prefix):
        raise _invalid("methods and paths mean nothing to tcp")
    if written.inject and written.scheme != "https":
        raise _invalid("a secret is set over TLS only")
    if written.inject and written.inject.header.lower() in _UNSETTABLE:
        raise _invalid(f"the header {written.inject.header} is the protocol's own")
    return Rule(
        host=_host(written.host),
        port=port,
        scheme=written.scheme,
        methods=tuple(sorted(set(written.methods))),
        path_prefix=written.path_prefix,
        inject=Inject(**written.inject.model_dump()) if written.inject else None,
    )


def load_ceiling(profiles_dir: Path) -> Policy:
    """Read `egress/ceiling.toml`: the most that any execution may be permitted.

    Without the file, nothing is permitted. Raises SetupError if the file cannot be understood.
    """
    path = profiles_dir / "egress" / "ceiling.toml"
    try:
        written = _Ceiling.model_validate(tomllib.loads(path.read_text()))
        rules = tuple(
            Rule(host=ANY, port=port, scheme=rule.scheme)
            if rule.host == ANY and (port := rule.port or PORTS.get(rule.scheme))
            else parse_rule(rule.model_dump(exclude_none=True))
            for rule in written.allow
        )
    except FileNotFoundError:
        return Policy()
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise SetupError(f"{path} is not a ceiling: {error}") from error
    except Invalid as error:
        raise SetupError(f"{path} is not a ceiling: {error.detail}") from error
    budgets = written.model_dump(exclude={"allow"}, exclude_none=True)
    return replace(Policy(rules=rules), **budgets)


def within(rule: Rule, ceiling: Policy) -> bool:
    """Return whether the ceiling permits everything that the rule permits."""
    return any(
        rule.port == most.port
        and rule.scheme == most.scheme
        and _covers(most.host, rule.host)
        and (not most.methods or (rule.methods and set(rule.methods) <= set(most.methods)))
        and rule.path_prefix.startswith(most.path_prefix)
        for most in ceiling.rules
    )


def rule_to_json(rule: Rule) -> dict[str, Any]:
    """Return the rule with every field, as it is stored."""
    return {**asdict(rule), "methods": list(rule.methods)}


def rule_from_json(value: Mapping[str, Any]) -> Rule:
    """Return a stored rule."""
    return _RULE.validate_python(value)


def policy_to_json(policy: Policy) -> dict[str, Any]:
    """Return the policy with every field."""
    return {**asdict(policy), "rules": [rule_to_json(rule) for rule in policy.rules]}


def policy_from_json(value: Mapping[str, Any]) -> Policy:
    """Return the policy that `policy_to_json` wrote."""
    return _POLICY.validate_python(value)


_RULE = TypeAdapter(Rule)
_POLICY = TypeAdapter(Policy)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Injected(_Strict):
    header: str = Field(pattern=r"^[A-Za-z0-9-]{1,64}$")
    secret: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    prefix: str = Field(default="", max_length=64, pattern=r"^[\x20-\x7e]*$")


class _Written(_Strict):
    host: str = Field(min_length=1, max_length=1024)
    port: int | None = Field(default=None, ge=1, le=65535)
    scheme: Scheme = "https"
    methods: list[Annotated[str, Field(pattern=r"^[A-Z]{1,16}$")]] = Field(
        default_factory=list, max_length=16
    )
    # Paths are compared as they are sent, so a rule must not have one that servers read
    # differently.
    path_prefix: str = Field(
        default="", max_length=512, pattern=r"^(/[A-Za-z0-9._~!$&'()*+,;=:@/-]*)?$"
    )
    inject: _Injected | None = None


class _Ceiling(_Strict):
    allow: list[_Written] = Field(default_factory=list)
    max_connections: int | None = Field(default=None, ge=1)
    max_concurrent: int | None = Field(default=None, ge=1)
    max_bytes: int | None = Field(default=None, ge=1)


def _host(written: str) -> str:
    wildcard = written.startswith("*.")
    try:
        name = normalise(written[2:] if wildcard else written)
    except BadName as error:
        raise _invalid(f"{written!r} is {error}") from None
    if not wildcard:
        return name
    if address_in(name) is not None or "." not in name:
        raise _invalid(f"{written!r} is a wildcard over more than one owner's names")
    return f"*.{name}"


def _covers(pattern: str, host: str) -> bool:
    """Return whether the first matches every name that the second does, pattern or name."""
    if pattern == host:
        return True
    if pattern == ANY:
        return address_in(host) is None
    return pattern.startswith("*.") and host.removeprefix("*").endswith(pattern[1:])


def _from_text(text: str) -> dict[str, Any]:
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "https", text
    try:
        parts = urlsplit(f"//{rest}")
        port = parts.port
    except ValueError:
        raise _invalid(f"{text!r} is not a host and a port") from None
    host = rest if port is None else rest[: rest.rindex(":")]
    return {"scheme": scheme, "host": host, **({} if port is None else {"port": port})}


def _invalid(detail: str) -> Invalid:
    return Invalid(f"not an egress rule: {detail}", "egress")
