"""Checking a chain against its signed heads: what was cut off, written anew, or vouched for by someone else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from opsexec.audit import VerifyReport, verify
from opsexec.audit.record import GENESIS
from opsexec.audit_heads.head import SignedHead, heads_path, read_heads

if TYPE_CHECKING:
    from collections.abc import Callable

    from opsexec.audit_heads.keys import HostKeys

Why = Literal["unsigned", "heads", "signature", "host"]


class HeadsProblem(msgspec.Struct, frozen=True):
    """What is wrong with the heads. unsigned: nothing vouches for this chain; heads: a line of the file was changed,
    taken out or is none; signature: not one of the host's keys' own; host: it vouches for another host.
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
    where it is known. One signature is checked, the newest: it covers all heads, and its line all lines before.
    """
    count, last, last_line, problem = 0, None, 0, None
    number, before = -1, GENESIS
    for file, line, head in read_heads(log):
        broken = head is None or (last is not None and (head.said.number, head.said.before) != (number + 1, before))
        if broken or head is None:
            problem = HeadsProblem(file, line, "heads", "this line of the signed heads was changed, or one before it")
            break
        count, last, last_line = count + 1, head, line
        number, before = head.said.number, head.digest
    file = heads_path(log)
    chain = verify(log, head=None if last is None else last.entry)
    if problem is None:
        problem = _problem_of(file, last, last_line, chain, keys_for, host)
    unsigned = 0 if last is None or chain.head is None else max(0, chain.head.seq - last.said.seq)
    return HeadsReport(chain, count, last, unsigned, problem)


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
