"""A run whose caller waits: known to others while it goes on, ended when the caller goes, answered however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent import http_server as web
from agent.answer import Answer
from agent.desk import ActiveRun, Desk
from opsexec.errors import ConnectionLost, OpsError
from opsexec.executor import RunOutput


async def serve_attended(
    desk: Desk, active: ActiveRun, answer: Answer, work: Callable[[], Awaitable[RunOutput]], left: str
) -> web.StreamResponse:
    """Do the work as a run of this caller's, and answer with its end. `left`: what is said of a caller who went.

    Whoever ends the run (its caller by leaving, another by a signal, a reload) cancels the work, and has it told why.
    """
    connection = answer.connection
    desk.active[active.run] = active
    connection.on_revoked = active.end
    connection.on_left = lambda: active.end(ConnectionLost(left))
    answer.begin()
    try:
        output = await work()
    except OpsError as error:
        return await answer.error(error)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if active.ended_by is None or task is None:
            raise
        task.uncancel()
        return await answer.error(active.ended_by)
    finally:
        connection.on_left = connection.on_revoked = None
        del desk.active[active.run]
        active.over.set()
    return await answer.output(output)
