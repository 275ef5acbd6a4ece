"""Calls that go on for a while: processes with their output and input, and ports."""

import asyncio

from runner.base.tasks import attended
from runner.base.tracing import SpanTracer
from runner.door import calls
from runner.door.call import DoorCall
from runner.door.calls import FinishCall
from runner.door.grants import DoorGrant
from runner.door.replies import (
    ConnectedReply,
    DrainedReply,
    EndedReply,
    FinishReply,
    GapReply,
    ProcessReply,
)
from runner.door.wire import Chunk
from runner.node.residents.attend import Incoming, NodeLine, nothing_more, out_of_turn
from runner.node.residents.carried import CarriedBytes, PortBytes, counting
from runner.node.residents.journal import Journal
from runner.node.residents.masked import before, gathered, masked
from runner.node.residents.processes import TrackedProcess
from runner.node.residents.resident import Resident
from runner.node.residents.spans import follow_process
from runner.sandbox.guest.dialled import DialledPort
from runner.sandbox.guest.processes import Attached
from runner.words.errors import GuestRefused
from runner.words.execution import Stream
from runner.words.lives import Life
from runner.words.living import Launch, OutputGap, TerminalSize

_SENT_S = 50e-6
"""The time, on a slow core, to send a piece of output to the API."""
_KINDS = {Stream.STDOUT: b"O", Stream.STDERR: b"E"}


ANSWERED = (
    calls.StartCall,
    calls.AttachCall,
    calls.InputCall,
    calls.SignalCall,
    calls.ResizeCall,
    calls.ForgetCall,
    calls.ProcessesCall,
    calls.ProcessCall,
    calls.DialCall,
)


async def answer(
    line: NodeLine,
    resident: Resident,
    grant: DoorGrant,
    call: DoorCall,
    journal: Journal,
    tracer: SpanTracer,
) -> None:
    """Answer one of these calls. Raises NotFound, GuestRefused, SandboxEnded, Conflict."""
    match call:
        case calls.ProcessCall(process=number, wait=wait):
            await _tell_process(line, resident, number, wait=wait)
        case calls.ProcessesCall():
            await _tell_processes(line, resident)
        case _:
            if isinstance(call, calls.AttachCall) and not call.wakes:
                # Who only reads may not make it use processor time.
                resident.require_running()
            else:
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
    processes = resident.processes
    match call:
        case calls.StartCall():
            await _start(line, resident, grant, call, tracer)
        case calls.AttachCall():
            await _attach(line, resident, call)
        case calls.InputCall():
            await _write_input(line, resident, call)
        case calls.SignalCall(process=number, number=signal):
            processes.get(number).guest.signal(signal)
        case calls.ResizeCall(process=number, terminal=size):
            processes.get(number).guest.resize(TerminalSize(size.rows, size.columns))
        case calls.ForgetCall(process=number):
            processes.forget(number)
        case calls.DialCall(port=port):
            await _dial(line, resident, grant, port, journal)
        case _:
            raise out_of_turn(call)


async def _start(
    line: NodeLine, resident: Resident, grant: DoorGrant, call: calls.StartCall, tracer: SpanTracer
) -> None:
    """Start a process, and send its output if the call wants that."""
    size = call.terminal
    launch = Launch(
        argv=call.argv,
        env=call.env,
        cwd=call.cwd,
        stdin=call.stdin,
        terminal=None if size is None else TerminalSize(size.rows, size.columns),
        timeout_s=call.timeout_s,
        tag=call.tag,
        keep_bytes=call.keep_bytes,
    )
    if not call.attach:
        process = await resident.starts.alone(grant, launch)
        follow_process(tracer, grant, process)
        await line.tell(ProcessReply(process.info()))
        return
    async with resident.starts.attached(grant, launch) as (process, attached):
        follow_process(tracer, grant, process)
        # Its caller waits for the end, unless it has something to feed the process.
        await line.tell(ProcessReply(process.info()), may_wait=not call.stdin)
        sending = _send(line, resident, process, attached, 0, follow=True)
        await attended(sending, _input(line, process))


async def _attach(line: NodeLine, resident: Resident, call: calls.AttachCall) -> None:
    """Send a process's output from an offset on."""
    process = resident.processes.get(call.process)
    await line.tell(ProcessReply(process.info()))
    await _talk(line, resident, process, call.offset, follow=call.follow)


async def _talk(
    line: NodeLine, resident: Resident, process: TrackedProcess, offset: int, *, follow: bool
) -> None:
    await attended(_output(line, resident, process, offset, follow=follow), _input(line, process))


async def _output(
    line: NodeLine, resident: Resident, process: TrackedProcess, offset: int, *, follow: bool
) -> None:
    begin = before(offset, resident.masker)
    async with process.guest.attach(begin, follow=follow) as attached:
        await _send(line, resident, process, attached, offset, follow=follow)


async def _send(
    line: NodeLine,
    resident: Resident,
    process: TrackedProcess,
    attached: Attached,
    offset: int,
    *,
    follow: bool,
) -> None:
    """Send output from `offset` on; `attached` begins where masking has to."""
    charge = resident.guest.charge
    async for each in masked(gathered(attached), resident.masker, offset, charge=charge):
        charge(_SENT_S)
        if isinstance(each, OutputGap):
            await line.tell(GapReply(each.omitted))
        else:
            await line.send(_KINDS[each.stream], each.data)
    end = await process.wait() if follow else process.end
    if end is not None:
        await line.tell(EndedReply(end), may_wait=True)
    await line.tell(DrainedReply(attached.offset), may_wait=True)


async def _input(line: NodeLine, process: TrackedProcess) -> None:
    """Write the caller's bytes to the process's stdin, until the caller hangs up."""
    reads = process.guest.stdin
    while True:
        match await line.hear():
            case Chunk(b"D", data):
                if reads:
                    try:
                        await process.guest.write(data)
                    except GuestRefused:
                        # Like a pipe that nobody reads: further bytes are dropped.
                        reads = False
            case FinishCall():
                if reads:
                    process.guest.close_stdin()
                reads = False
            case said:
                raise out_of_turn(said)


async def _write_input(line: NodeLine, resident: Resident, call: calls.InputCall) -> None:
    """Write the bytes until `finish` to a process's stdin. Raises GuestRefused."""
    process = resident.processes.get(call.process)
    if not process.guest.stdin:
        raise GuestRefused("EBADF", f"process {call.process}")
    async for piece in Incoming(line):
        await process.guest.write(piece)
    if call.close:
        process.guest.close_stdin()


async def _tell_process(line: NodeLine, resident: Resident, number: int, *, wait: bool) -> None:
    process = resident.processes.get(number)
    if wait and process.end is None:
        await attended(process.wait(), nothing_more(line))
    written = await _written(resident, process)
    await line.tell(ProcessReply(process.info(written.get(number, 0))))


async def _tell_processes(line: NodeLine, resident: Resident) -> None:
    processes = list(resident.processes)
    written = await _written(resident, *processes)
    for process in processes:
        await line.tell(ProcessReply(process.info(written.get(process.number, 0))))


async def _written(resident: Resident, *processes: TrackedProcess) -> dict[int, int]:
    """Return how much each running process has written; empty if the sandbox is frozen."""
    if resident.life is not Life.RUNNING or all(process.end for process in processes):
        return {}
    return {each.process: each.output for each in await resident.guest.list_processes()}


async def _dial(
    line: NodeLine, resident: Resident, grant: DoorGrant, number: int, journal: Journal
) -> None:
    """Carry bytes between the caller and a port, until both directions have ended."""
    async with resident.guest.dial(number) as port:
        journal.connected(grant, number)
        await line.tell(ConnectedReply())
        sent = asyncio.Event()

        def tell(more: PortBytes) -> None:
            journal.carried(grant, number, bytes_in=more.bytes_in, bytes_out=more.bytes_out)

        with counting(resident.meter.ports, tell) as carried:
            await attended(
                _from_port(line, port, sent, carried), _to_port(line, port, sent, carried)
            )


async def _from_port(
    line: NodeLine, port: DialledPort, sent: asyncio.Event, carried: CarriedBytes
) -> None:
    while data := await port.read():
        await line.send(b"D", data)
        carried.add(out=len(data))
    await line.tell(FinishReply())
    await sent.wait()


async def _to_port(
    line: NodeLine, port: DialledPort, sent: asyncio.Event, carried: CarriedBytes
) -> None:
    taken = True
    while True:
        match await line.hear():
            case Chunk(data=data):
                if taken:
                    try:
                        await port.write(data)
                        carried.add(into=len(data))
                    except GuestRefused:
                        taken = False
            case FinishCall():
                if taken:
                    port.finish()
                sent.set()
            case said:
                raise out_of_turn(said)
