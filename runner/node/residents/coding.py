"""Calls about contexts: begin and end them, run code in them."""

import hashlib

from runner.base.tasks import attended
from runner.base.tracing import SpanTracer
from runner.door import code_calls
from runner.door.call import DoorCall
from runner.door.grants import DoorGrant
from runner.door.replies import ContextReply
from runner.door.wire import Chunk
from runner.node.contexts.context import Context
from runner.node.residents.attend import NodeLine, nothing_more, out_of_turn
from runner.node.residents.journal import Journal
from runner.node.residents.resident import Resident
from runner.node.residents.spans import run_of

_SENT_S = 50e-6
"""The time, on a slow core, to send a part of a run to the API."""

ANSWERED = (
    code_calls.OpenContextCall,
    code_calls.ContextsCall,
    code_calls.ContextCall,
    code_calls.RunCodeCall,
    code_calls.InterruptCall,
    code_calls.RestartCall,
    code_calls.CloseContextCall,
)


async def answer(
    line: NodeLine,
    resident: Resident,
    grant: DoorGrant,
    call: DoorCall,
    journal: Journal,
    tracer: SpanTracer,
) -> None:
    """Answer one of these code_calls.

    Raises NotFound, Invalid, Conflict, GuestRefused and SandboxEnded.
    """
    contexts = resident.contexts
    match call:
        case code_calls.ContextsCall():
            for each in contexts:
                await line.tell(ContextReply(each.info()))
        case code_calls.ContextCall(context=number):
            await line.tell(ContextReply(contexts.get(number).info()))
        case _:
            await resident.awake()
            await _answer_running(line, resident, grant, call, journal, tracer)


async def _answer_running(
    line: NodeLine,
    resident: Resident,
    grant: DoorGrant,
    call: DoorCall,
    journal: Journal,
    tracer: SpanTracer,
) -> None:
    contexts = resident.contexts
    match call:
        case code_calls.OpenContextCall(language=language, cwd=cwd, shared=True):
            sharing = contexts.share(language, cwd)
            shared, done = await attended(sharing, nothing_more(line))
            if done is not None:
                journal.context(grant, done, {"context": shared.number, "language": language})
            await line.tell(ContextReply(shared.info()))
        case code_calls.OpenContextCall(language=language, cwd=cwd, env=env):
            opened = await attended(contexts.open(language, cwd, env), nothing_more(line))
            journal.context(grant, "opened", {"context": opened.number, "language": language})
            await line.tell(ContextReply(opened.info()))
        case code_calls.RunCodeCall(context=number):
            with run_of(tracer, grant, contexts.get(number).info().language):
                await _run(line, resident, grant, call, journal)
        case code_calls.InterruptCall(context=number):
            await contexts.get(number).interrupt()
        case code_calls.RestartCall(context=number):
            context = contexts.get(number)
            await attended(context.restart(), nothing_more(line))
            journal.context(grant, "restarted", {"context": number})
            await line.tell(ContextReply(context.info()))
        case code_calls.CloseContextCall(context=number):
            contexts.close(number)
            journal.context(grant, "closed", {"context": number})
        case _:
            raise out_of_turn(call)


async def _run(
    line: NodeLine,
    resident: Resident,
    grant: DoorGrant,
    call: code_calls.RunCodeCall,
    journal: Journal,
) -> None:
    """Run code, and send what happens. If the caller hangs up, the code is interrupted."""
    context = resident.contexts.get(call.context)
    context.require_room()
    digest = hashlib.sha256(call.code.encode()).hexdigest()
    journal.context(grant, "ran", {"context": call.context, "code_sha256": digest})
    await line.tell(ContextReply(context.info()))
    await attended(_parts(line, resident, context, call), nothing_more(line))


async def _parts(
    line: NodeLine, resident: Resident, context: Context, call: code_calls.RunCodeCall
) -> None:
    async with context.run(call.code, call.env, call.timeout_s) as events:
        async for event in events:
            resident.guest.charge(_SENT_S)
            if isinstance(event, Chunk):
                await line.send(event.kind, event.data)
            else:
                await line.tell(event)
