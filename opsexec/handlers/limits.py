"""A handler's calls under its step's limits: deadline, output, and an answer of the right shape."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from opsexec.errors import LimitExceeded, ProtocolError, StepTimeout
from opsexec.handlers.context import Context

T = TypeVar("T")
BLOCK = 256 << 10
"""Bytes of an answer that become output at once."""


async def within(what: str, work: Awaitable[T], context: Context) -> T:
    """Await `work` within the step's deadline; raises StepTimeout, which names `what`, when it passes."""
    try:
        async with asyncio.timeout(context.timeout_s) as deadline:
            return await work
    except TimeoutError as error:
        if not deadline.expired():
            raise
        text = f"{what} took longer than {context.timeout_s:g} s"
        raise StepTimeout(text, host=context.host.name, hint="raise timeout_s") from error


async def call(
    operation: str, args: Sequence[bytes], run_as: str | None, context: Context, *, items: int
) -> list[bytes]:
    """Do one operation on the host within the step's deadline, and return its answer of so many items.

    Raises StepTimeout when the deadline passes, ProtocolError for an answer of another length.
    """
    answer = await within(operation, context.host.call(operation, args, run_as=run_as), context)
    if len(answer) != items:
        text = f"the host's answer to {operation} has {len(answer)} items, not {items}"
        raise ProtocolError(text, host=context.host.name, hint="both sides must be the same version")
    return answer


async def give(stream: int, data: bytes, context: Context) -> None:
    """Make this a stream's output block by block, at the pace of who reads it; raises LimitExceeded.

    Whoever else is served in this loop is so between two blocks.
    """
    recorder = context.recorder
    drained = asyncio.Event()
    recorder.on_drain = recorder.on_failure = drained.set
    ready = True
    for at in range(0, len(data), BLOCK):
        if at:
            await (asyncio.sleep(0) if ready else drained.wait())
        if recorder.failure is not None:
            return
        drained.clear()
        ready = recorder.feed(stream, data[at : at + BLOCK])
        require_within_limit(context)


def require_within_limit(context: Context) -> None:
    """Raise LimitExceeded when the step's output passed the limit of its capabilities."""
    recorder = context.recorder
    if recorder.over_limit:
        text = f"output is over the limit of {recorder.limit_bytes} bytes"
        raise LimitExceeded(text, host=context.host.name, hint="ask for less, or raise max_output_bytes")
