"""Runs checks: each after those it depends on, each bounded, and whatever goes wrong is a verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from agent.services.check import Check
from agent.services.finding import Evidence, Finding, Fix, Ruling, skipped, unknown
from agent.services.look import Look
from agent.services.probe import Unreadable
from agent.services.secret_shapes import mask

CHECK_TIMEOUT_S = 20.0
"""Seconds one check may take in all; what it asks is bounded more tightly."""

ODD = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""What taking apart a hostile program's answer can raise; the verdict on such an answer is unknown."""

STOPPERS = ("fail", "unknown")
"""Verdicts that say all there is to say for the checks that come after."""


class Engine:
    """One run of checks over one subject."""

    def __init__(self, look: Look, subject: str, *, timeout_s: float = CHECK_TIMEOUT_S) -> None:
        self._look = look
        self._subject = subject
        self._timeout_s = timeout_s
        self._done: dict[str, asyncio.Event] = {}
        self._rulings: dict[str, list[Ruling]] = {}

    async def run(self, chosen: Sequence[Check]) -> list[Finding]:
        """Return the findings, in the order of the checks; raises what ends a whole run (see `probe.FATAL`)."""
        system = await self._look.system()
        self._done = {each.id: asyncio.Event() for each in chosen}
        try:
            async with asyncio.TaskGroup() as group:
                for each in chosen:
                    group.create_task(self._one(each, system))
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors
        return [finding for each in chosen for finding in self._findings(each)]

    async def _one(self, check: Check, system: str) -> None:
        try:
            examined = await self._look.examined() if check.family == "persist" else system
            self._rulings[check.id] = await self._ruled(check, examined)
        finally:
            self._done[check.id].set()

    async def _ruled(self, check: Check, system: str) -> list[Ruling]:
        if system not in check.platforms:
            return [skipped(f"means nothing on {system or 'this system'}")]
        root = await self._root_cause(check.after)
        if root is not None:
            return [skipped(f"because {root}", root)]
        try:
            async with asyncio.timeout(self._timeout_s):
                rule = check.mac_rule if check.mac_rule is not None and system == "Darwin" else check.rule
                ruled = await rule(self._look)
        except TimeoutError:
            return [unknown(f"gave up after {self._timeout_s:g} s")]
        except Unreadable as error:
            root = await self._root_of(error, check)
            if root is not None:
                return [skipped(f"because {root}", root)]
            fix = Fix(text=error.hint) if error.hint else None
            return [unknown(error.reason, *error.evidence, fix=fix)]
        except ODD as error:
            return [unknown(f"what was read has a shape nobody foresaw ({type(error).__name__})")]
        return self._waived(check, ruled if isinstance(ruled, list) else [ruled])

    async def _root_of(self, error: Unreadable, check: Check) -> str | None:
        """Return the check that says better what could not be read, when it has run and said so."""
        if error.root is None or error.root == check.id or error.root not in self._done:
            return None
        await self._done[error.root].wait()
        said = self._rulings.get(error.root, [])
        if any(each.verdict in (*STOPPERS, "info") for each in said):
            return error.root
        return next((each.because for each in said if each.because is not None), None)

    async def _root_cause(self, after: Iterable[str]) -> str | None:
        """Return the root cause among these checks, once all of them are done; None when nothing stops this one."""
        for each in after:
            if each not in self._done:
                continue
            await self._done[each].wait()
            for ruling in self._rulings.get(each, []):
                if ruling.verdict in STOPPERS:
                    return each
                if ruling.because is not None:
                    return ruling.because
        return None

    def _waived(self, check: Check, rulings: list[Ruling]) -> list[Ruling]:
        """Return rulings with what the declaration waives turned into an info that says so."""
        declared = self._look.declared
        why = None if declared is None else declared.waive.get(check.id)
        if why is None:
            return rulings
        return [
            Ruling(verdict="info", summary=f"{each.summary} (waived: {why})", evidence=each.evidence)
            if each.verdict in ("warn", "fail")
            else each
            for each in rulings
        ]

    def _findings(self, check: Check) -> list[Finding]:
        return [
            Finding(
                id=check.id,
                subject=self._subject if check.scope == "service" else check.scope,
                verdict=each.verdict,
                severity=check.severity,
                summary=mask(each.summary[:1000]),
                because=each.because,
                evidence=tuple(_masked(evidence) for evidence in each.evidence),
                fix=each.fix,
                blocks_preflight=check.blocks and each.verdict in STOPPERS,
            )
            for each in self._rulings.get(check.id, [unknown("it never came to a ruling")])
        ]


def _masked(evidence: Evidence) -> Evidence:
    """Return evidence fit for a report that others read: command lines and journals may hold secrets."""
    cmd = None if evidence.cmd is None else mask(evidence.cmd)
    return msgspec.structs.replace(evidence, cmd=cmd, excerpt=mask(evidence.excerpt))


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group, however deep: what ends one check ends them all."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
