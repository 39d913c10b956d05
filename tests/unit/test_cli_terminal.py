"""A terminal's end reaches the audit, whoever waits for it."""

from __future__ import annotations

import asyncio

import pytest

from opsexec.errors import AuditUnavailable, ConnectionLost
from opsexec.executor import RunOutput
from opsexec.terminal import AuditedTerminal, shell_status

pytestmark = pytest.mark.anyio


class FakeSession:
    """A TtySession that ends when told to."""

    def __init__(self) -> None:
        self.over: asyncio.Future[RunOutput] = asyncio.get_running_loop().create_future()

    async def read(self) -> bytes:
        return b""

    async def write(self, data: bytes) -> None: ...

    def resize(self, columns: int, rows: int) -> None: ...

    async def wait(self) -> RunOutput:
        return await asyncio.shield(self.over)

    async def aclose(self) -> None:
        if not self.over.done():
            self.over.set_result(RunOutput(run="r", host="h", signal="SIGHUP"))


async def test_an_end_that_nobody_waits_for_is_recorded_once() -> None:
    ends: list[RunOutput] = []
    fake_session = FakeSession()
    terminal = AuditedTerminal(fake_session, ends.append)
    await terminal.aclose()
    await terminal.aclose()
    assert [end.signal for end in ends] == ["SIGHUP"]
    assert (await terminal.wait()).signal == "SIGHUP"


async def test_a_lost_connection_is_recorded_as_a_failure_and_raised_by_wait() -> None:
    failures: list[BaseException] = []
    fake_session = FakeSession()
    terminal = AuditedTerminal(fake_session, lambda output: None, failures.append)
    lost = ConnectionLost("gone", host="h")
    fake_session.over.set_exception(lost)
    with pytest.raises(ConnectionLost):
        await terminal.wait()
    await terminal.aclose()
    assert failures == [lost]


async def test_an_end_that_cannot_be_recorded_is_an_error() -> None:
    def refuse(output: RunOutput) -> None:
        raise AuditUnavailable("full")

    terminal = AuditedTerminal(FakeSession(), refuse)
    with pytest.raises(AuditUnavailable):
        await terminal.aclose()
    with pytest.raises(AuditUnavailable):
        await terminal.wait()


@pytest.mark.parametrize(
    ("exit_code", "signal", "status"),
    [(0, None, 0), (3, None, 3), (None, "SIGKILL", 137), (None, "SIGNEW", 128), (None, None, 0)],
)
async def test_an_end_is_told_as_a_shell_would_tell_it(exit_code: int | None, signal: str | None, status: int) -> None:
    assert shell_status(RunOutput(run="r", host="h", exit_code=exit_code, signal=signal)) == status
