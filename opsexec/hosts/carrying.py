"""What carries one copy, by rsync or as a tar stream: a process here, a far module on a wire, and a bridge between."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from opsexec.errors import HostUnsuitable, OpsError
from opsexec.far.copy_request import PULL, PUSH, CopyRequest
from opsexec.far.message import as_text
from opsexec.hosts.answers import as_error
from opsexec.hosts.bootstrap import new_nonce
from opsexec.hosts.bridge import Bridge, OpenFar, Wire, ended_early
from opsexec.hosts.local_session import no_start

if TYPE_CHECKING:
    from opsexec.hosts.port import SyncPlan

READY_S = 20.0
"""Seconds either end may take to be ready."""
FAR_END_S = 2.0
"""Seconds the host's end may take to report its status once the end here is through."""


class TarNeeded(Exception):
    """rsync can't carry this copy (a side has none, or the host can't hold it to the grants); nothing was copied."""


class LocalEnd(Protocol):
    """The process on this machine that copies."""

    async def start(self) -> None:
        """Start it."""
        ...

    async def streams(self) -> tuple[int, int, Sequence[bytes]] | None:
        """Return the descriptors from and to it and the request's words; None when it has ended already."""
        ...

    def far_ended(self, status: int | None) -> None:
        """The host's end is through, with this status; None when the wire broke."""
        ...

    async def wait(self) -> None:
        """Wait until it is through."""
        ...

    async def end(self) -> None:
        """End it, if it isn't through, and let go of everything."""
        ...


def request_of(plan: SyncPlan, words: Sequence[bytes]) -> CopyRequest:
    """Return what the host's end is asked for; `words` are rsync's options, or exclude patterns."""
    return CopyRequest(
        plan.run,
        PUSH if plan.direction == "push" else PULL,
        plan.remote,
        plan.grants,
        words,
        check=plan.check,
        delete=plan.delete,
        tree=plan.direction == "push" and (plan.local.endswith("/") or _is_tree(plan.local)),
        rate=plan.bandwidth_bytes_s or 0,
    )


def _is_tree(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


class Carried:
    """How a copy ended on the host's side.

    `status`: None when the wire broke; `details`: what its answer held; `complaint`: the end of what it wrote to
    stderr, and `said` the last line of that.
    """

    def __init__(self, bridge: Bridge, details: Sequence[bytes], host: str) -> None:
        self.status = bridge.closed.result() if bridge.closed.done() else None
        self.broken = bridge.closed.done() and self.status is None
        self.details = details
        self.said = bridge.said
        self.complaint = bridge.complaint.decode("utf-8", "replace")
        self._host = host

    def require_whole(self) -> None:
        """Raise ConnectionLost when the wire broke: that is why the end here failed."""
        if self.broken:
            raise ended_early(self._host)


async def carry(plan: SyncPlan, host: str, module: str, open_far: OpenFar, end: LocalEnd) -> Carried:
    """Run both ends of one copy until both are through. Raises TarNeeded before anything was copied."""
    bridge = Bridge(
        nonce := new_nonce(),
        host,
        lambda status, said: ended_early(host) if status is None else no_start(host, plan.run_as, status, said),
    )
    opening = asyncio.ensure_future(open_far(module, nonce, bridge))
    details: Sequence[bytes] = ()
    try:
        await end.start()
        wire = await opening
        streams = await end.streams()
        if streams is not None:
            details = await _join(plan, host, module, bridge, wire, streams)
            bridge.closed.add_done_callback(lambda closed: end.far_ended(closed.result()))
        await end.wait()
        if streams is not None:
            await asyncio.wait([bridge.closed], timeout=FAR_END_S)
        return Carried(bridge, details, host)
    finally:
        await _let_go(bridge, opening, end)


async def _join(
    plan: SyncPlan, host: str, module: str, bridge: Bridge, wire: Wire, streams: tuple[int, int, Sequence[bytes]]
) -> Sequence[bytes]:
    """Put the request to the host's end and, when it is granted, let the bytes flow; returns the answer's details."""
    from_process, to_process, words = streams
    try:
        wire.write(request_of(plan, words).pack())
        await asyncio.wait([bridge.answer], timeout=READY_S)
        if not bridge.answer.done():
            raise HostUnsuitable(f"the host's end of the copy did not answer within {READY_S:g} s", host=host)
        answer = bridge.answer.result()
        if answer[:1] != [b"ok"]:
            raise refusal([as_text(item) for item in answer[1:]], host, module)
    except BaseException:  # a cancellation as well: nobody else holds the pipes
        os.close(from_process)
        os.close(to_process)
        raise
    bridge.join(wire, from_process, to_process)
    return answer[1:]


def refusal(texts: Sequence[str], host: str, module: str) -> Exception:
    """Return the exception for what the host's end answered instead of `ok`; only rsync's can ask for tar."""
    if len(texts) < 2:
        return OpsError("the host's end of the copy gave no reason", host=host)
    code, text, *details = texts
    if code == "take_tar" and module == "rsync_serve":
        return TarNeeded(text)
    return as_error(code, text, details, host=host)


async def _let_go(bridge: Bridge, opening: asyncio.Future[Wire], end: LocalEnd) -> None:
    """Close everything at once, and only then wait for it to be gone."""
    bridge.close()
    if opening.done() and not opening.cancelled() and opening.exception() is None:
        opening.result().close()
    opening.cancel()
    try:
        await end.end()
    finally:
        await asyncio.wait([opening])
        if not opening.cancelled() and opening.exception() is None:
            opening.result().close()
            await opening.result().wait_closed()
