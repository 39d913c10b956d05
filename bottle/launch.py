"""A plan -> a running bottle: phases of Steps through an executor, the bundle beside the agent, and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bottle.authority import Authority
from bottle.backends.base import Backend, Phase, Place, all_steps
from bottle.backends.by_name import backend
from bottle.building import built
from bottle.bundle_output import BundleOutput
from bottle.credentials import Credentials
from bottle.errors import LaunchFailed
from bottle.plan import BottlePlan
from bottle.reloading import Reloading
from bottle.restarting import Restarting
from bottle.resuming import clear_the_way
from bottle.taking_away import once, undone, waited_for
from opsexec.capability import CapabilitySet, least
from opsexec.errors import CapabilityDenied, HostUnsuitable, OpsError, PathNotFound, StepFailed
from opsexec.executor import AuditSink, Executor, LogSink, RunOutput
from opsexec.steps import Push, ReadFile, RemoveFile, Step

if TYPE_CHECKING:
    from typing import TextIO

    from bottle.operator.attendant import Attendant

READY_S = 30.0
LEAVE_S = 5.0
ATTEMPTS = 8
AMBIGUOUS = (128, 137)
"""What an engine reports of a program whose container was ended, and a program may end with by itself."""


class Rebuild(Exception):
    """A person approved what needs the bottle taken down, and brought up again with another plan."""


@dataclass(frozen=True)
class Launch:
    """Everything one launch needs. `say`: progress, a line each; `seen`: each decision of egress, as it is made.

    `authority`: makes it, while the surroundings are made.
    `attendant`: who takes the agent's proposals, where there is supervise. `command`: the agent's words, where they
    aren't the plan's own; `stdin`: what it is given. `restarting`: by whom a person's restarts come.
    """

    plan: BottlePlan
    place: Place
    secrets: Credentials
    authority: Callable[[], Awaitable[Authority]]
    audit: AuditSink
    log: TextIO
    say: Callable[[str], None]
    seen: Callable[[dict[str, Any]], None]
    resume: bool = False
    attendant: Attendant | None = None
    command: tuple[str, ...] | None = None
    stdin: Callable[[], AsyncIterator[bytes]] | None = None
    restarting: Restarting | None = None


def capabilities(plan: BottlePlan, place: Place, secrets: Credentials, authority: Authority) -> list[str]:
    """Return the least that a host must grant for this plan."""
    steps = all_steps(backend(plan.backend), plan, place, secrets, authority)
    found = least([need for _, step in steps for need in step.requires()])
    # What works on a tree is asked for by its top, and held to the grants again at every entry.
    trees = [need for _, step in steps if _works_on_a_tree(step) for need in step.requires()]
    return sorted({*found, *(f"{need}/**" for need in trees)})


def _works_on_a_tree(step: Step) -> bool:
    return isinstance(step, Push) or (isinstance(step, RemoveFile) and step.recursive)


def ceiling(plan: BottlePlan, place: Place, secrets: Credentials, authority: Authority) -> CapabilitySet:
    """Return the set a launch runs under: that least, and nothing beside it."""
    return CapabilitySet.of(*capabilities(plan, place, secrets, authority))


async def run(launch: Launch, ex: Executor, output: LogSink, on_running: Callable[[], None]) -> RunOutput:
    """Bring the bottle up, run its agent to its end, take the bottle down.

    Raises LaunchFailed when the bundle isn't ready within READY_S seconds, or ends before the agent. What was made is
    taken away again when the agent never ran; a failure of that is told, and the first error stays the one raised.
    """
    undo: list[Phase] = []
    ending: list[Phase] = []
    say = once(lambda line: launch.say(f"warning: {launch.plan.identity}: {line}"))
    try:
        return await _run(launch, ex, output, on_running, undo, ending)
    except BaseException:  # a signal as well, which cancels
        if not launch.resume:
            await asyncio.shield(undone([(phase.name, phase.teardown) for phase in reversed(undo)], ex.run, say))
        raise
    finally:
        # Where the agent ran there is nothing to undo, and an engine had been there.
        left = [(phase.name, phase.ending) for phase in reversed(ending)]
        await asyncio.shield(undone(left, ex.run if undo else waited_for(ex.run, launch.say), say))


async def _run(
    launch: Launch,
    ex: Executor,
    output: LogSink,
    on_running: Callable[[], None],
    undo: list[Phase],
    ending: list[Phase],
) -> RunOutput:
    plan = launch.plan
    how = backend(plan.backend)
    layout = how.lay_out(launch.place)
    undo.append(layout)
    place, authority = await _surround(how, launch, ex, undo, ending, layout)
    launch.say(f"CA {authority.fingerprint}")
    restarting = launch.restarting or Restarting(plan.identity, launch.say)
    restarting.watch(how.daemons(plan, launch.place))
    line = restarting.line
    reloading = Reloading(how, plan, place, ex, restarting)
    attendant = launch.attendant
    listening: dict[str, Callable[[dict[str, Any]], None]] = {"egress": reloading.heard, "init": restarting.heard}
    if attendant is not None:
        attendant.attach(lambda text: line.send(f"tell supervise {text}"))
        listening["supervise"] = attendant.take
    said = BundleOutput(
        plan.identity, how.daemons(plan, launch.place), launch.audit, launch.log, launch.seen, listening
    )
    async with AsyncExitStack() as stack:
        step = how.bundle_run(plan, place, launch.secrets, authority)
        bundle = asyncio.create_task(ex.run_streaming(step, said, stdin=line.words()))
        stack.push_async_callback(_end, bundle)
        filling = how.provision(plan, place, authority)
        if launch.resume:
            await clear_the_way(ex, place, filling, launch.say)
        for phase in filling:
            await (built(ex, phase.steps, said, launch.say) if phase.name == "image" else _steps(ex, phase.steps))
        guest = how.guest_run(plan, place)
        if guest is not None:
            stood = _Spoke()
            guest_task = asyncio.create_task(ex.run_streaming(guest, stood, stdin=_line_held_open()))
            stack.push_async_callback(_end, guest_task)
            await _until(stood.ready, [guest_task, bundle], "the agent's place")
        watch = how.home_watch(plan, place)
        home = None if watch is None else asyncio.create_task(_watched(ex, watch, launch.say))
        if home is not None:
            stack.push_async_callback(_end, home)
        await _until_ready(bundle, said)
        # A rebuilt place is tried before it is said to run: there is another to go back to.
        tried = (("true",),) if attendant is not None and attendant.trying else ()
        for argv in (*tried, *plan.provider.before, *plan.provider.verify):
            out = await _beside(bundle, ex.run_streaming(how.agent_run(plan, place, launch.secrets, argv)))
            if not out.ok:
                last = out.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
                raise LaunchFailed(f"{plan.provider.name}'s {' '.join(argv[:3])} failed: {last}", host=plan.identity)
        undo.clear()  # from here on there is something to resume
        on_running()
        watching = None if attendant is None else asyncio.create_task(attendant.watch(reloading.apply))
        if watching is not None:
            stack.push_async_callback(_end, watching)
        agent = how.agent_run(plan, place, launch.secrets, launch.command)
        given = None if launch.stdin is None else launch.stdin()
        try:
            out = await _beside(bundle, ex.run_streaming(agent, output, stdin=given), watching, home)
        except StepFailed:
            if guest is not None and guest_task.done():  # which says more than that there is nothing to run it in
                raise _used_up(guest_task) from None
            raise
        if guest is not None and out.exit_code in AMBIGUOUS:
            there = how.agent_run(plan, place, launch.secrets, ("true",))
            await _outlived(guest_task, ex.run_streaming(there))
        return out


async def _side_by_side(*works: Coroutine[Any, Any, None]) -> None:
    """Do them all; the first that fails ends the others, and is what is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            if not task.cancelling():  # a second time would break off what each still does to end well
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _surround(
    how: Backend, launch: Launch, ex: Executor, undo: list[Phase], ending: list[Phase], layout: Phase
) -> tuple[Place, Authority]:
    """Make what stands around the bundle and the agent, and what is the bottle's own beside it; returns where they are.

    Addresses that somebody else has are tried elsewhere, ATTEMPTS times in all. An engine is asked first: while it is
    at work there is time for everything else.
    """
    asked = asyncio.Event()
    own = asyncio.create_task(_own(how, launch, ex, layout, asked))
    try:
        for attempt in range(ATTEMPTS):
            place = replace(launch.place, attempt=attempt, again=launch.resume or attempt > 0)
            around = how.surroundings(launch.plan, place)
            undo += around
            ending[:] = around
            if not around:
                asked.set()
            try:
                await _side_by_side(*(_steps(ex, phase.steps, asked) for phase in around))
            except OpsError as error:
                if attempt == ATTEMPTS - 1 or not how.elsewhere(error):
                    raise
                del undo[-len(around) :]
                continue
            break
        return place, await own
    finally:
        await _end(own)


async def _own(how: Backend, launch: Launch, ex: Executor, layout: Phase, asked: asyncio.Event) -> Authority:
    """Make the bottle's directories, the bundle's files and its authority, once the first of what stands around is."""
    await asked.wait()
    minting = asyncio.ensure_future(launch.authority())
    try:
        await _steps(ex, layout.steps)
        read = await _host(ex, how.host_reads())
        for phase in (how.bundle_files(launch.place, read), how.route_table(launch.plan, launch.place)):
            await _steps(ex, phase.steps)
        return await minting
    finally:
        minting.cancel()


class _Spoke:
    """A sink that notes the first word of what it is given, and keeps nothing."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()

    async def write(self, stream: str, data: bytes) -> None:
        """Take a block."""
        self.ready.set()


async def _host(ex: Executor, steps: Sequence[ReadFile]) -> dict[str, bytes]:
    """Read what the bundle takes from its host; what isn't there stands empty, and alone that."""
    found = {}
    for step in steps:
        try:
            found[step.path] = await _read_whole(ex, step)
        except PathNotFound:
            found[step.path] = b""
    return found


class _Kept:
    """A sink that keeps everything: a step's output holds the last 64 KiB only."""

    def __init__(self) -> None:
        self.data = bytearray()

    async def write(self, stream: str, data: bytes) -> None:
        """Keep a block."""
        self.data += data


async def _read_whole(ex: Executor, step: ReadFile) -> bytes:
    kept = _Kept()
    await ex.run(step, kept)
    return bytes(kept.data)


async def _steps(ex: Executor, steps: Sequence[Step], first: asyncio.Event | None = None) -> None:
    """Run them one after the other; `first` is set once one is done."""
    for step in steps:
        await ex.run(step)
        if first is not None:
            first.set()


async def _line_held_open() -> AsyncIterator[bytes]:
    """Say nothing, and hold the line: its end is how a bundle knows that its launcher is gone."""
    await asyncio.Event().wait()
    yield b""


async def _until_ready(bundle: asyncio.Task[RunOutput], said: BundleOutput) -> None:
    await _until(said.ready, [bundle], "the bundle")
    if said.failed is not None:
        raise LaunchFailed(f"the bundle didn't come up: {said.failed}", hint="`bottle logs` shows why")


async def _until(ready: asyncio.Event, runs: Sequence[asyncio.Task[RunOutput]], what: str) -> None:
    """Wait for an event, at most READY_S seconds and no longer than all of these runs last."""
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait([waiting, *runs], timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        for run in runs:
            if run.done():
                raise _ended_early(run, what if run is runs[0] else "the bundle")
        if not waiting.done():
            raise LaunchFailed(f"{what} wasn't ready within {READY_S:g} s", hint="`bottle logs` shows why")
    finally:
        waiting.cancel()


async def _watched(ex: Executor, watch: Step, say: Callable[[str], None]) -> RunOutput:
    """Run the watch over a home to its end; a host that has none to offer is told of, and nobody watches there."""
    try:
        return await ex.run_streaming(watch, stdin=_line_held_open())
    except HostUnsuitable as error:
        say(f"warning: the agent's home has no bound: {error}")
        await asyncio.Event().wait()
        raise


async def _beside(
    bundle: asyncio.Task[RunOutput],
    work: Any,
    watching: asyncio.Task[None] | None = None,
    home: asyncio.Task[RunOutput] | None = None,
) -> RunOutput:
    """Await a run of the agent's; when the bundle ends first, so does the agent, and nothing goes on without a gate.

    The end of `watching` ends the agent too: by Rebuild, or by what went wrong there; so does that of the watch over
    its `home`.
    """
    task: asyncio.Task[RunOutput] = asyncio.ensure_future(work)
    try:
        beside = [each for each in (bundle, watching, home) if each is not None]
        await asyncio.wait([task, *beside], return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and home is not None and home.done() and not bundle.done():
            raise _ended_early(home, "the agent was ended: the watch over its home")
        if not task.done() and watching is not None and watching.done():
            watching.result()
            raise Rebuild
        if not task.done():
            raise _ended_early(bundle)
        return task.result()
    finally:
        await _end(task)


def _ended_early(bundle: asyncio.Task[RunOutput], what: str = "the bundle") -> OpsError:
    error = bundle.exception()
    if isinstance(error, CapabilityDenied):  # it says what to grant, and that nothing could run
        return error
    if error is not None:
        failed = LaunchFailed(f"{what} failed: {error}", hint=getattr(error, "hint", None))
        failed.__cause__ = error
        return failed
    out = bundle.result()
    last = out.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
    how = out.signal or f"exit status {out.exit_code}"
    return LaunchFailed(f"{what} ended ({how}){': ' + last if last else ''}", hint="`bottle logs` shows more")


async def _outlived(guest: asyncio.Task[RunOutput], probe: Awaitable[RunOutput]) -> None:
    """Raise LaunchFailed where the agent's container has ended under it: then the status isn't the agent's own."""
    try:
        there = (await probe).ok
    except OpsError:  # nothing can be run in it any more
        there = False
    if not there:  # its end is on its way, or has come
        await asyncio.wait([guest], timeout=LEAVE_S)
    if guest.done():
        raise _used_up(guest)


def _used_up(guest: asyncio.Task[RunOutput]) -> LaunchFailed:
    failed = _ended_early(guest, "the agent's container")
    return LaunchFailed(failed.message, hint="it may have used up what it has: --limit memory=8g, processes=4096")


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a run and wait until its process tree is gone."""
    if not task.done():
        task.cancel()
    await asyncio.wait([task], timeout=LEAVE_S)
    if task.done() and not task.cancelled():
        task.exception()  # the first error is the one that is raised: another is looked at, so that nobody prints it
