"""Proposals on the operator's disk, by bottle: a directory that its owner alone enters, bounded in count and bytes.

The launcher alone writes proposals and outcomes; a person's command alone writes decisions, which the launcher claims
by renaming, so that one is carried out once or withdrawn once. No place in it is bound into a sandbox.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bottle.operator.candidate import Candidate, read_candidate
from bottle.operator.live import LivePolicy, read_policy
from opsexec.errors import OpsError
from opsexec.plain_file import NotPlain, read_plain

DIRECTORY = "supervise"
MAX_FILE = 256 << 10
_NONCE = re.compile(r"[0-9a-f]{32}\.json\Z")

Status = Literal["pending", "approved", "rejected", "failed", "void"]


class QueueUnreadable(OpsError):
    """A bottle's queue can't be read as one."""

    code = "queue_unreadable"


@dataclass(frozen=True)
class Proposal:
    """One proposal. `times`: how often it was asked for. `asked_at`, `decided_at`: seconds since the epoch."""

    number: int
    candidate: Candidate
    why: str
    asked_at: float
    times: int = 1
    status: Status = "pending"
    reason: str = ""
    decided_at: float | None = None


@dataclass(frozen=True)
class Decision:
    """What a person said. `candidate`, `policy`: digests of what was shown. `body`: the change as edited, or None.

    `uid`: who wrote it, by the kernel's word.
    """

    nonce: str
    number: int
    approve: bool
    candidate: str
    policy: str
    reason: str = ""
    body: Mapping[str, Any] | None = None
    uid: int = -1


class Queue:
    """One bottle's queue. `place`: its directory, below the bottle's own."""

    def __init__(self, bottle: Path) -> None:
        self.place = bottle / DIRECTORY

    # -- the launcher's side --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the directories, empty: what was asked or decided in an earlier life is in the audit."""
        for name in ("proposals", "decisions", "outcomes"):
            directory = self.place / name
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in directory.iterdir():
                path.unlink()
        self.place.chmod(0o700)

    def write(self, proposal: Proposal) -> None:
        """Keep a proposal as it is now."""
        data = asdict(proposal) | {
            "candidate": {"kind": proposal.candidate.kind, "body": dict(proposal.candidate.body)}
        }
        _write(self.place / "proposals" / f"{proposal.number}.json", data)

    def write_policy(self, policy: LivePolicy) -> None:
        """Keep the live policy, for whoever shows what a change would do."""
        _write(self.place / "policy.json", policy.rendered())

    def claim(self) -> Iterator[Decision]:
        """Yield the decisions that are there, each taken so that nobody else has it, and gone afterwards."""
        for name in sorted(os.listdir(self.place / "decisions")):
            if not _NONCE.match(name):
                continue
            taken = self.place / "decisions" / f"{name}.taken"
            try:
                (self.place / "decisions" / name).rename(taken)
            except FileNotFoundError:  # withdrawn just now
                continue
            nonce = name.removesuffix(".json")
            try:
                decision = _decision(nonce, taken)
            finally:
                taken.unlink()
            if decision is not None:
                yield decision
            else:
                said = {"carried_out": False, "text": "the decision can't be read: is it of the launcher's own user?"}
                _write(self.place / "outcomes" / f"{nonce}.json", said)

    def conclude(self, decision: Decision, carried_out: bool, text: str) -> None:
        """Tell the one who decided what came of it."""
        _write(self.place / "outcomes" / f"{decision.nonce}.json", {"carried_out": carried_out, "text": text})

    # -- a person's side ------------------------------------------------------------------------------------------

    def proposals(self) -> list[Proposal]:
        """Return all proposals of this life of the bottle, by number; raises QueueUnreadable."""
        try:
            names = os.listdir(self.place / "proposals")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise QueueUnreadable(f"{self.place}: {error.strerror}", hint="its owner may read it") from error
        found = [_proposal(self.place / "proposals" / name) for name in names if name.endswith(".json")]
        return sorted(found, key=lambda each: each.number)

    def has_policy(self) -> bool:
        """True when a bottle with supervise ran here."""
        return (self.place / "policy.json").exists()

    def policy(self) -> LivePolicy:
        """Return the live policy; raises QueueUnreadable."""
        path = self.place / "policy.json"
        try:
            return read_policy(_read(path))
        except ValueError as error:
            raise QueueUnreadable(f"{path} holds no policy", hint="is the bottle of this version?") from error

    def decide(self, decision: Decision) -> None:
        """Hand a decision to the launcher; it is there whole or not at all."""
        data = {key: value for key, value in asdict(decision).items() if key not in ("nonce", "uid")}
        _write(self.place / "decisions" / f"{decision.nonce}.json", data)

    def outcome(self, decision: Decision) -> tuple[bool, str] | None:
        """Return whether it was carried out and what is to be said of it; None: not yet."""
        path = self.place / "outcomes" / f"{decision.nonce}.json"
        if not path.exists():
            return None
        found = _read(path)
        return bool(found.get("carried_out")), str(found.get("text", ""))

    def withdraw(self, decision: Decision) -> bool:
        """Take a decision back; False when the launcher has it already."""
        try:
            (self.place / "decisions" / f"{decision.nonce}.json").unlink()
        except FileNotFoundError:
            return False
        return True


def new_nonce() -> str:
    """Return a decision's own name."""
    return secrets.token_hex(16)


def decided(proposal: Proposal, status: Status, reason: str, at: float) -> Proposal:
    """Return the proposal with what came of it."""
    return replace(proposal, status=status, reason=reason, decided_at=at)


def _write(path: Path, data: Mapping[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(data, file)
        beside.rename(path)
    except BaseException as error:  # Ctrl-C as well
        with contextlib.suppress(OSError):  # the disk's first word is the one to tell
            beside.unlink()
        if not isinstance(error, OSError):
            raise
        raise QueueUnreadable(f"{path} can't be written: {error.strerror}", hint="is the disk full?") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_FILE))
    except (OSError, ValueError) as error:
        raise QueueUnreadable(f"{path} can't be read", hint="the bottle's launcher writes it") from error
    if not isinstance(found, dict):
        raise QueueUnreadable(f"{path} holds no object", hint="the bottle's launcher writes it")
    return found


def _proposal(path: Path) -> Proposal:
    found = _read(path)
    try:
        candidate = read_candidate(found["candidate"]["kind"], found["candidate"]["body"])
        return Proposal(**{**found, "candidate": candidate})
    except (KeyError, TypeError, OpsError) as error:
        raise QueueUnreadable(f"{path} holds no proposal", hint="is the bottle of this version?") from error


def _decision(nonce: str, path: Path) -> Decision | None:
    """Return a claimed decision; None for a file that holds none, which then counts as no word at all."""
    try:
        data, info = read_plain(path, MAX_FILE)
        found = json.loads(data)
        shape = {"number": int, "approve": bool, "candidate": str, "policy": str, "reason": str}
        if not all(type(found[name]) is kind for name, kind in shape.items()):
            return None
        return Decision(nonce=nonce, uid=info.st_uid, **found)
    except (OSError, NotPlain, ValueError, TypeError, KeyError, RecursionError):
        return None
