"""A handler's calls under its step's deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from opsexec.errors import StepTimeout
from opsexec.handlers.context import Context

T = TypeVar("T")


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


async def call(operation: str, args: Sequence[bytes], run_as: str | None, context: Context) -> list[bytes]:
    """Do one operation on the host within the step's deadline; raises StepTimeout when it passes."""
    return await within(operation, context.host.call(operation, args, run_as=run_as), context)
