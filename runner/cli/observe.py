"""Opens what `runner profile learn` needs: its own launcher, and an egress proxy if requested."""

import dataclasses
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from runner.base.seccomp import Document
from runner.base.settings import Settings
from runner.egress.gateway import EgressGateway
from runner.egress.policy import ANY, Policy, load_ceiling, parse_rule, within
from runner.egress.session import Decision
from runner.network.roots import read_roots
from runner.node.runs.egress import proxy_environment
from runner.profiles.learn import NetworkAccess, Observation, OpenAccess, learn, no_access
from runner.sandbox.engine.maker import Configure
from runner.sandbox.guest.sandbox import Bridge, Sandbox
from runner.sandbox.launch import Launcher
from runner.words.errors import Invalid
from runner.words.execution import InputFile
from runner.words.resources import RunBounds
from runner.words.sandbox import SandboxSpec


async def observe(
    settings: Settings,
    document: Document,
    command: list[str],
    *,
    files: list[InputFile],
    spec: SandboxSpec,
    bounds: RunBounds,
    configure: Configure,
    policy: Policy,
    decisions: list[Decision],
) -> Observation:
    """Observe the command in such a sandbox with this egress policy; note the decisions."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    # Use a separate state folder: a worker removes unknown sandboxes in its own one as strays.
    with tempfile.TemporaryDirectory(prefix="learn-", dir=settings.state_dir) as folder:
        apart = settings.model_copy(update={"state_dir": Path(folder)})
        async with AsyncExitStack() as stack:
            launcher = await stack.enter_async_context(
                Launcher.open(apart, node=apart.node_id, instance="learn", configure=configure)
            )
            way_out: OpenAccess = no_access
            if policy.rules:
                gateway = await stack.enter_async_context(_gateway(apart))
                way_out = _way_out(gateway, policy, decisions)
            return await learn(
                launcher,
                document,
                command,
                spec=spec,
                bounds=bounds,
                files=files,
                way_out=way_out,
            )


def egress_policy(settings: Settings, rules: list[str]) -> Policy:
    """Return the command's egress policy. Raises Invalid for a rule beyond the ceiling."""
    ceiling = load_ceiling(settings.profiles_path)
    if not rules:
        return Policy()
    if ANY in rules:
        return ceiling
    wanted = tuple(parse_rule(rule) for rule in rules)
    for rule in wanted:
        if not within(rule, ceiling):
            raise Invalid(f"{rule.name} is beyond the operator's ceiling", "egress")
    return dataclasses.replace(ceiling, rules=wanted)


def _gateway(settings: Settings) -> AbstractAsyncContextManager[EgressGateway]:
    return EgressGateway.open(
        uid=settings.egress_uid,
        trusted_networks=settings.egress_trusted_networks,
        hosts=settings.egress_hosts,
        roots=read_roots(settings.egress_roots),
        profiles_dir=settings.profiles_path,
        state_dir=settings.state_dir,
        patience=settings.patience,
    )


def _way_out(gateway: EgressGateway, policy: Policy, decisions: list[Decision]) -> OpenAccess:
    @asynccontextmanager
    async def opened(sandbox: Sandbox) -> AsyncIterator[NetworkAccess]:
        listener = sandbox.listen_for_egress()
        session = await gateway.open_session(
            sandbox.id, "observed", policy, listener, {}, decisions.append
        )
        try:
            yield NetworkAccess(proxy_environment(), Bridge())
        finally:
            await session.close()

    return opened
