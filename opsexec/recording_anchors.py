"""The links of a recording that an audit log holds: what its agent noted while the terminal went on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from opsexec.audit.segment import closed_segments
from opsexec.errors import AuditUnavailable
from opsexec.recording_chain import Anchor

STEP_TYPE = "tty.recording"
"""The type of the audit lines that note a link."""


class _Line(msgspec.Struct):
    run: str | None = None
    step: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Line)


def anchors_in(log: str | Path, run: str) -> list[Anchor]:
    """Return the links of a run's recording that a log holds, oldest first; raises AuditUnavailable.

    The log is believed as it stands: `opsexec.audit.verify` says whether it may be.
    """
    path = Path(log).absolute()
    found: list[Anchor] = []
    try:
        for file in (*(each for _, each in closed_segments(path)), path):
            with file.open("rb") as stream:
                found += [anchor for line in stream if (anchor := _anchor(line, run)) is not None]
    except OSError as error:
        raise AuditUnavailable(f"the audit log {path} can't be read: {error.strerror}") from error
    return found


def _anchor(line: bytes, run: str) -> Anchor | None:
    if run.encode() not in line or STEP_TYPE.encode() not in line:
        return None
    try:
        record = _decoder.decode(line)
        if record.run != run or record.step is None or record.step.get("type") != STEP_TYPE:
            return None
        return msgspec.convert({name: record.step[name] for name in Anchor.__struct_fields__}, Anchor)
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError) as error:
        raise AuditUnavailable(f"an audit line of the run {run} can't be read: {error}") from error
