"""Checking a chain against its signed heads: what was cut off, written anew, or vouched for by someone else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from opsexec.audit import AuditEntry, VerifyReport, verify
from opsexec.audit.record import GENESIS, parse
from opsexec.audit.segment import snapshot
from opsexec.audit_heads.head import SignedHead, heads_path, read_heads
from opsexec.errors import AuditUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from opsexec.audit_heads.keys import HostKeys

Why = Literal["unsigned", "heads", "signature", "host", "changed"]
Place = tuple[Path, int, AuditEntry]
TRIES = 5


class HeadsProblem(msgspec.Struct, frozen=True):
    """What is wrong with the heads.

    unsigned: nothing vouches for this chain; heads: a line of the file was changed, taken out or is none; signature:
    not one of the host's keys' own; host: it vouches for another host; changed: a line that was signed is another now
    or gone, though the chain was signed again since, by an agent that went on after someone had cut it.
    """

    file: Path
    line: int
    why: Why
    detail: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.detail}"


class HeadsReport(msgspec.Struct, frozen=True):
    """What was found. `signed`: the newest head; `unsigned`: how many lines of the chain came after it."""

    chain: VerifyReport
    heads: int
    signed: SignedHead | None
    unsigned: int
    problem: HeadsProblem | None

    @property
    def ok(self) -> bool:
        """Whether the chain is whole and the signatures say so."""
        return self.problem is None and self.chain.ok


def check_heads(log: Path, keys_for: Callable[[str], HostKeys] | None, host: str | None = None) -> HeadsReport:
    """Check the heads of a log, and the log against the newest; raises AuditUnavailable, and what `keys_for` raises.

    `keys_for`: returns the keys of a host by its name; None leaves the signatures unchecked. `host`: whose log this is,
    where it is known. One signature is checked, the newest: it covers all heads before. Every head's line must be in
    the chain, but for those that retention has removed.
    """
    count, last, last_line, problem = 0, None, 0, None
    signed: list[Place] = []
    number, before = -1, GENESIS
    for file, line, head in read_heads(log):
        broken = head is None or (last is not None and (head.said.number, head.said.before) != (number + 1, before))
        if broken or head is None:
            problem = HeadsProblem(file, line, "heads", "this line of the signed heads was changed, or one before it")
            break
        count, last, last_line = count + 1, head, line
        number, before = head.said.number, head.digest
        signed.append((file, line, head.entry))
    file = heads_path(log)
    chain = verify(log, head=None if last is None else last.entry)
    if problem is None:
        problem = _problem_of(file, last, last_line, chain, keys_for, host)
    if problem is None and chain.problem is None:
        problem = _changed(log, signed, chain.first_seq)
    unsigned = 0 if last is None or chain.head is None else max(0, chain.head.seq - last.said.seq)
    return HeadsReport(chain, count, last, unsigned, problem)


def _changed(log: Path, signed: list[Place], first_seq: int) -> HeadsProblem | None:
    """Return the first head whose line is not the chain's."""
    found, begins = _hashes(log, {entry.seq for _, _, entry in signed})
    for file, line, entry in signed:
        if entry.seq >= max(first_seq, begins) and found.get(entry.seq) != entry.hash:
            how = "is not in the chain" if entry.seq not in found else "is another in the chain"
            return HeadsProblem(file, line, "changed", f"line {entry.seq}, which was signed, {how}")
    return None


def _hashes(log: Path, wanted: set[int]) -> tuple[dict[int, str], int]:
    """Return the hashes of these lines of a chain, as far as they are there, and its first line's number now.

    Raises AuditUnavailable.
    """
    for _ in range(TRIES):
        taken = snapshot(log)
        try:
            found: dict[int, str] = {}
            begins = taken.closed[0][0] if taken.closed else 0
            files: list[Path | int] = [*(path for _, path in taken.closed), taken.active]
            for segment in files:
                with open(segment, "rb", closefd=segment != taken.active) as stream:
                    for raw in stream:
                        line = parse(raw)
                        if line is not None and line.seq in wanted:
                            found[line.seq] = line.hash
            return found, begins
        except FileNotFoundError:
            continue  # retention has just removed it: look again
        except OSError as error:
            raise AuditUnavailable(f"the audit log {log} can't be read: {error.strerror}") from error
        finally:
            os.close(taken.active)
    raise AuditUnavailable(f"the audit log {log} loses segments faster than they can be read", hint="keep more of them")


def _problem_of(
    file: Path,
    last: SignedHead | None,
    line: int,
    chain: VerifyReport,
    keys_for: Callable[[str], HostKeys] | None,
    host: str | None,
) -> HeadsProblem | None:
    if last is None:
        return HeadsProblem(file, 1, "unsigned", "there are no signed heads: nothing vouches for this chain")
    if host is not None and last.said.host != host:
        return HeadsProblem(file, line, "host", f"the newest head is {last.said.host}'s, not {host}'s")
    if keys_for is not None and not keys_for(last.said.host).vouch(last.statement, last.signature):
        return HeadsProblem(file, line, "signature", f"the newest head is not signed by a key of {last.said.host}")
    if chain.head is not None and chain.first_seq > last.said.seq:
        text = f"the chain begins at line {chain.first_seq}, after line {last.said.seq}, the last that was signed"
        return HeadsProblem(file, line, "unsigned", text)
    return None
