"""Serves sessions of Claude's managed agents, by the worker of Anthropic's package.

That worker claims a session from the environment's queue, keeps its lease while it serves it, and
gives it back at its end. This adds the tools: each runs in a sandbox of the session's own. The
environment's key and the sessions' tokens stay in this process; no sandbox needs a network.

If this process is killed, the lease ends, the queue gives the session to another worker, and the
sandbox ends when nobody has used it for a while.
"""

import asyncio
import logging
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anthropic import APIStatusError, AsyncAnthropic
from anthropic.lib.environments import BetaAnyRunnableTool, EnvironmentWorker

from agent_runner import AsyncClient
from runner.cli.address import Address
from runner.cli.claude_tools import SandboxTools
from runner.words.errors import SetupError

if TYPE_CHECKING:
    from anthropic.lib.tools.agent_toolset import AgentToolContext


@dataclass(frozen=True, slots=True)
class Queue:
    """The environment whose sessions are served, and how."""

    environment: str
    key: str
    idle_s: float
    at_once: int


class MemoryUnsupported(Exception):
    """A session has memory stores, which are not mounted here."""


def serve(address: Address, queue: Queue, options: Mapping[str, Any]) -> None:
    """Serve sessions until SIGINT or SIGTERM; those under way are given back.

    `options` are those of each sandbox. Raises ApiError, and SetupError if Anthropic refuses.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # One line for each request says nothing that the worker does not.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        asyncio.run(_serve(address, queue, options))
    except asyncio.CancelledError:
        logging.getLogger(__name__).info("stopped")
    except ExceptionGroup as group:
        refused, others = group.split(APIStatusError)
        if refused is None or others is not None:
            raise
        raise SetupError(
            f"Anthropic refuses work of {queue.environment}: {refused.exceptions[0]}; check the "
            "environment's id and ANTHROPIC_ENVIRONMENT_KEY"
        ) from None


async def _serve(address: Address, queue: Queue, options: Mapping[str, Any]) -> None:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with (
        AsyncClient(address.url, address.api_key) as api,
        AsyncAnthropic(auth_token=queue.key) as anthropic,
    ):
        # A wrong address or key fails here, and not in the middle of a session.
        await api.sandboxes.list(limit=1)
        async with asyncio.TaskGroup() as group:
            for _ in range(queue.at_once):
                group.create_task(_work(api, anthropic, queue, options))


async def _work(
    api: AsyncClient, anthropic: AsyncAnthropic, queue: Queue, options: Mapping[str, Any]
) -> None:
    # Anthropic's worker puts a session's skills here, from where they go into the sandbox.
    with tempfile.TemporaryDirectory(prefix="claude-") as folder:

        def tools(session: "AgentToolContext") -> Sequence[BetaAnyRunnableTool]:
            if session.session is not None and any(
                each.type == "memory_store" for each in session.session.resources
            ):
                raise MemoryUnsupported("memory stores are not supported: the session is given up")
            return SandboxTools(api, options, Path(folder) / "skills").all_of_them()

        worker = EnvironmentWorker(
            anthropic,
            environment_id=queue.environment,
            environment_key=queue.key,
            tools=tools,
            workdir=folder,
            max_idle=queue.idle_s,
            memory_sync_interval=None,
        )
        await worker.run()
