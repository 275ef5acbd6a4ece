"""The SDK of agent-runner: its HTTP API as Python.

ApiError                 the API refused; carries the problem document
├── NotAuthenticated     401
├── NotPermitted         403
├── NotFound             404
├── Conflict             409, 412
├── Gone                 410
├── Invalid              400, 411, 413, 415, 422
├── TooMany              429
└── Unavailable          502, 503, 504, no answer at all, or one that is not this API's

Everything is there twice, asynchronous (`AsyncClient`, `AsyncSandbox`, …) and synchronous
(`Client`, `Sandbox`, …): the same methods with the same arguments, awaited or not.

    _async          the asynchronous half, which is the source of both
    _sync           the synchronous half, which is written from it
    address         where the deployment is
    transport       how long requests wait, what is repeated, and failures made ours
    answers         reads what the API answers, and finds out what is not its answer
    living_answers  the same for sandboxes that live
    types           what the API answers, as plain values
    living          the same for sandboxes that live
    runs            the same for code contexts
    closing         how WebSockets end, as our errors
    packing         a folder here, as a tar archive
    unpacking       a folder that came from a sandbox
    errors          the tree above
    integrations    adapters for agent frameworks, imported only by those who use one
"""

from agent_runner._async.client import AsyncClient
from agent_runner._async.contexts import AsyncContext
from agent_runner._async.forwarding import AsyncForward
from agent_runner._async.processes import AsyncProcess
from agent_runner._async.sandbox import AsyncSandbox
from agent_runner._async.sandbox_files import AsyncFileWatch
from agent_runner._async.terminals import AsyncTerminal
from agent_runner._sync.client import Client
from agent_runner._sync.contexts import Context
from agent_runner._sync.forwarding import Forward
from agent_runner._sync.processes import Process
from agent_runner._sync.sandbox import Sandbox
from agent_runner._sync.sandbox_files import FileWatch
from agent_runner._sync.terminals import Terminal
from agent_runner.errors import (
    ApiError,
    Conflict,
    FileTooLarge,
    Gone,
    Invalid,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    TooMany,
    Unavailable,
    UnsafeArchive,
)
from agent_runner.living import (
    BuildOutput,
    FileChanges,
    FileEntry,
    OpenedPort,
    OutputEvent,
    PortInfo,
    ProcessInfo,
    Ran,
    SandboxEvent,
    SandboxInfo,
    SignedUrl,
    SnapshotInfo,
    TemplateInfo,
    TemplateTag,
)
from agent_runner.runs import CodeError, ContextInfo, Result, Run, RunEvent
from agent_runner.types import (
    ApiKey,
    Artifact,
    Event,
    Execution,
    Invitation,
    Member,
    NewApiKey,
    Project,
    StoredFile,
    Stream,
)

__all__ = [
    "ApiError",
    "ApiKey",
    "Artifact",
    "AsyncClient",
    "AsyncContext",
    "AsyncFileWatch",
    "AsyncForward",
    "AsyncProcess",
    "AsyncSandbox",
    "AsyncTerminal",
    "BuildOutput",
    "Client",
    "CodeError",
    "Conflict",
    "Context",
    "ContextInfo",
    "Event",
    "Execution",
    "FileChanges",
    "FileEntry",
    "FileTooLarge",
    "FileWatch",
    "Forward",
    "Gone",
    "Invalid",
    "Invitation",
    "Member",
    "NewApiKey",
    "NotAuthenticated",
    "NotFound",
    "NotPermitted",
    "OpenedPort",
    "OutputEvent",
    "PortInfo",
    "Process",
    "ProcessInfo",
    "Project",
    "Ran",
    "Result",
    "Run",
    "RunEvent",
    "Sandbox",
    "SandboxEvent",
    "SandboxInfo",
    "SignedUrl",
    "SnapshotInfo",
    "StoredFile",
    "Stream",
    "TemplateInfo",
    "TemplateTag",
    "Terminal",
    "TooMany",
    "Unavailable",
    "UnsafeArchive",
]

__version__ = "0.1.0"
