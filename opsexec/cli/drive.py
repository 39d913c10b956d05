"""Runs a command's async work: the first signal ends what runs on the hosts, the second leaves at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING

from opsexec.cli.ending import say, tell
from opsexec.errors import OpsError

if TYPE_CHECKING:
    import logging

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_S = 0.3
"""Signals closer together than this have one cause: a terminal that is closed sends several."""

_caught: list[signal.Signals] = []
_since: list[float] = []
before_leaving: list[Callable[[], None]] = []
"""What must be put right even when the process leaves at once: a terminal in raw mode."""


def drive(
    work: Callable[[], Coroutine[object, object, int]], when_left: str = "what was under way has been ended"
) -> int:
    """Run it to its end and return its exit code, or 128 + the signal's number when one ended it.

    `when_left`: what has become of its work then, in words.
    """
    import asyncio
    import logging

    logging.getLogger("asyncio").addFilter(_worth_saying)
    caught = _caught
    caught.clear()
    _since.clear()

    async def main() -> int:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def stop(number: signal.Signals) -> None:
            if not caught:
                caught.append(number)
                task.cancel()

        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and shells ask for that
                loop.add_signal_handler(number, stop, number)
                signal.signal(number, _leave)
        return await work()

    try:
        code = asyncio.run(main())
        told = ""
    except asyncio.CancelledError:
        code, told = 0, f": {when_left}"
    except OpsError as error:
        if not caught:
            raise
        say(error)
        code, told = error.exit_code, ""
    except BaseExceptionGroup as errors:
        raise _the_one(errors) from errors
    if not caught:
        return code
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _leave) for number in heard}
    try:
        tell(f"interrupted by {caught[0].name}{told}")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + caught[0]


def _worth_saying(record: logging.LogRecord) -> bool:
    """Whether asyncio's word is one for a user: not that a child (a ProxyCommand) ended before it was waited for.

    It waits for children in threads, and looks itself as a pipe's other end goes: whoever comes second, or once the
    loop is closed, warns.
    """
    return not str(record.msg).startswith(("Unknown child process pid", "Loop %r that handles pid"))


def _leave(number: int, frame: object) -> None:
    """Leave at the second signal, also where the loop can't be told of one: it writes to a terminal that stands still.

    A handler of asyncio's alone would wait for that, and has the kernel begin the write again.
    """
    if not _since:
        _since.append(time.monotonic())
    elif time.monotonic() - _since[0] > SAME_S:
        for put_right in before_leaving:
            put_right()
        os._exit(128 + number)


def _the_one(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what tasks side by side all ended with (the reader of stdout went); else the group, as it is."""
    kinds = {type(error) for error in _flat(errors)}
    return next(_flat(errors)) if len(kinds) == 1 else errors


def _flat(errors: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flat(error)
        else:
            yield error


def interrupted() -> bool:
    """True once a signal has ended what the running command was doing."""
    return bool(_caught)


async def all_at_once(works: list[Callable[[], Awaitable[None]]], at_most: int) -> None:
    """Do them concurrently, `at_most` at a time. The first that raises cancels the others and is raised."""
    import asyncio

    room = asyncio.Semaphore(at_most)

    async def one(work: Callable[[], Awaitable[None]]) -> None:
        async with room:
            await work()

    if len(works) == 1:
        return await works[0]()
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(one(work))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
