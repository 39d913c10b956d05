"""`AuditRead` in the agent: its own chain, checked or read back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from opsexec.audit import tail
from opsexec.audit_heads.check import check_heads
from opsexec.audit_heads.lines import of_run
from opsexec.audit_heads.report import heads_json
from opsexec.handlers.context import Context, Outcome
from opsexec.steps.audit import AuditRead

if TYPE_CHECKING:
    from agent.desk import Desk
    from opsexec.recorder import Recorder

BLOCK = 64 << 10


async def read_audit(desk: Desk, step: AuditRead, context: Context) -> Outcome:
    """Check the chain, or write records to stdout as lines of JSON, at the pace of who reads them."""
    log = desk.audit_path
    if step.what == "verify":
        report = await asyncio.to_thread(check_heads, log, None)
        if report.signed is None and report.problem is not None and report.problem.why == "unsigned":
            report = msgspec.structs.replace(report, problem=None)  # it is for the caller to want signatures
        return Outcome(value=heads_json(report))
    found: Iterable[dict[str, Any]]
    found = tail(log, step.lines) if step.what == "tail" else islice(of_run(log, step.run or ""), step.lines)
    blocks = _blocks(found)
    while (block := await asyncio.to_thread(next, blocks, None)) is not None:
        await _write(context.recorder, block)
    return Outcome()


def _blocks(records: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    waiting, size = [], 0
    for record in records:
        waiting.append(msgspec.json.encode(record) + b"\n")
        size += len(waiting[-1])
        if size >= BLOCK:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


async def _write(recorder: Recorder, block: bytes) -> None:
    drained = asyncio.Event()
    recorder.on_drain = drained.set
    if not recorder.feed(0, block):
        await drained.wait()
