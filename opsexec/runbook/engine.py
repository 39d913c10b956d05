"""The engine: tiers in order, batches in order, hosts side by side.

Journal, report, gates and resume around them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from opsexec.errors import OpsError, UsageError
from opsexec.runbook.batches import TierPlan, plan_tiers, untaken
from opsexec.runbook.host_run import HostRun, Shared
from opsexec.runbook.journal import Journal, NullJournal, new_run_id
from opsexec.runbook.masking import Masker
from opsexec.runbook.options import Approval, ApprovalMissing, Connect, RunOptions, ask_at_terminal
from opsexec.runbook.preflight import check_host, literal_secrets, read_secrets, refuse_reserved, refuse_unknown_tags
from opsexec.runbook.progress import Notice, Progress, RunFinished, RunStarted, SilentProgress, TierStarted
from opsexec.runbook.report import HostReport, Report
from opsexec.runbook.resume import JournalState, other_hosts
from opsexec.runbook.sources import Sources
from opsexec.runbook.unused import unused
from opsexec.runbook.variables import Scope
from opsexec.secret import MASK

if TYPE_CHECKING:
    from opsexec.capability import CapabilitySet
    from opsexec.inventory import Inventory, InventoryHost
    from opsexec.runbook.model import Runbook


async def execute(
    runbook: Runbook,
    inventory: Inventory,
    connect: Connect,
    options: RunOptions | None = None,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Report:
    """Run a runbook and return its report; a host's failure stands there, not in an exception.

    Raises UsageError and its kind, and CapabilityDenied, before anything is contacted; JournalUnavailable or
    AuditUnavailable when the run can't be recorded. Cancelling it ends every step under way, runs each
    begun host's `always` steps (60 seconds at most), and leaves a journal that `resume` goes on with.
    """
    return await Engine(runbook, inventory, connect, options, progress, journal).run()


class Engine:
    """One run. `report` can be read at any time, also after the run was cancelled."""

    def __init__(
        self,
        runbook: Runbook,
        inventory: Inventory,
        connect: Connect,
        options: RunOptions | None = None,
        progress: Progress | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._runbook = runbook
        self._inventory = inventory
        self._options = options or RunOptions()
        self._progress = progress or SilentProgress()
        self._journal = journal or NullJournal()
        self._connect = connect
        self._masker = Masker()
        self._scopes: dict[str, Scope] = {}
        self._sets: dict[str, CapabilitySet] = {}
        self._past: JournalState | None = None
        self.report = Report(self._options.resume or new_run_id())

    async def run(self) -> Report:
        """Run it once."""
        try:
            plans = self._prepare()
        except BaseException:  # whatever it was: run() alone closes the journal
            self._journal.close()
            raise
        hosts = tuple(host.name for plan in plans for host in plan.hosts)
        self._progress.on(RunStarted(self.report.run, self._runbook.name, hosts, self._options.check))
        for notice in self.report.notices:
            self._progress.on(Notice(notice))
        try:
            await self._tiers(plans)
        except anyio.get_cancelled_exc_class():
            self.report.interrupted = True
            go_on = "" if self._options.check else f"; go on with --resume {self.report.run}"
            self.report.stopped = f"interrupted{go_on}"
            self._journal.record("interrupted")
            self._progress.on(RunFinished(self.report))
            raise
        except BaseExceptionGroup as group:
            error = _first_ops_error(group)
            if error is None:
                raise
            raise error from group
        else:
            self._journal.record("end", totals=self.report.totals, stopped=self.report.stopped)
            self._progress.on(RunFinished(self.report))
        finally:
            try:
                self._journal.sync()
            finally:
                self._journal.close()
        return self.report

    def _prepare(self) -> list[TierPlan]:
        """Decide everything that can be decided before a host is contacted, and begin the journal."""
        runbook, options = self._runbook, self._options
        if options.resume is not None:
            self._past = self._journal.reopen(options.resume)
            self._options = options = self._resumed(self._past, options)
        refuse_unknown_tags(runbook, options.tags)
        plans = plan_tiers(runbook, self._inventory, options.limit)
        hosts = [host for plan in plans for host in plan.hosts]
        refuse_reserved(hosts)
        secrets = read_secrets(runbook, hosts, options)
        for value in (*(secret.reveal() for secret in secrets.values()), *literal_secrets(runbook)):
            self._masker.add(value)
        for name in self._secret_overrides(hosts):
            self._masker.add(options.vars[name])
        self._journal.masker = self._masker
        own = runbook.capability_set()
        notices = dict.fromkeys(unused(runbook, self._inventory.hosts.values(), options.vars))
        sources = Sources(runbook, hosts, options.tags, resumed=self._past is not None)
        steps = runbook.all_steps()
        for plan in plans:
            for host in plan.hosts:
                builtins = {
                    "host": host.name,
                    "tier": plan.title,
                    "run": self.report.run,
                    "check": options.check,
                }
                scope = Scope(
                    runbook=runbook.vars,
                    host=host.vars,
                    overrides=options.vars,
                    builtins=builtins,
                    secrets=secrets,
                )
                self._scopes[host.name] = scope
                held = host.capability_set()
                self._sets[host.name] = held if own is None else held & own
                for notice in check_host(runbook, scope, host, self._sets[host.name], steps, sources):
                    notices[notice] = None
                self.report.hosts[host.name] = HostReport(host.name, [])
        for name in untaken(plans, runbook, self._inventory, options.limit):
            notices[f"no tier takes {name}: nothing is done there"] = None
        if self._past is not None:
            notices |= dict.fromkeys(other_hosts(self._past, [host.name for host in hosts]))
        self.report.notices += [self._masker.text(notice) for notice in notices]
        self._begin_journal(hosts)
        return plans

    def _secret_overrides(self, hosts: list[InventoryHost]) -> list[str]:
        """Return the `--var` names that the runbook or a host declares secret."""
        from opsexec.runbook.secrecy import secret_names

        declared = set(secret_names(self._runbook.vars))
        for host in hosts:
            declared |= secret_names(host.vars)
        return [name for name in self._options.vars if name in declared]

    def _begin_journal(self, hosts: list[InventoryHost]) -> None:
        options = self._options
        if self._past is not None:
            self._journal.record("resumed", vars=dict(options.vars))
            return
        header = {
            "name": self._runbook.name,
            "file": self._runbook.file,
            "digest": self._runbook.digest,
            "hosts": {host.name: host.url for host in hosts},
            "vars": {n: MASK if n in self._secret_overrides(hosts) else v for n, v in options.vars.items()},
            "check": options.check,
            "limit": options.limit,
            "tags": list(options.tags),
        }
        self._journal.start(self.report.run, header)

    def _resumed(self, past: JournalState, options: RunOptions) -> RunOptions:
        """Return the options a resumed run goes on with.

        Those it was begun with, where none are given now.
        """
        header = past.header
        if header["digest"] != self._runbook.digest:
            raise UsageError(
                f"the runbook is not the one that run {options.resume} began with",
                hint="put it back as it was, or start a new run",
            )
        if header.get("check"):
            raise UsageError(f"run {options.resume} was a check and changed nothing", hint="run without --resume")
        for key in ("limit", "tags"):
            given, begun = getattr(options, key), header.get(key)
            if given and list(given) != list(begun or ()):
                raise UsageError(f"--{key} is not what run {options.resume} began with", hint=f"leave --{key} out")
        for name, url in header.get("hosts", {}).items():
            host = self._inventory.hosts.get(name)
            if host is not None and host.url != url:
                raise UsageError(f"{name} is at {host.url} now, and was at {url}", hint="start a new run")
        recorded = header.get("vars", {})
        masked = [name for name, value in recorded.items() if value == MASK and name not in options.vars]
        if masked:
            raise UsageError(f"--var {masked[0]} is a secret and was not kept", hint="give it again")
        return dataclasses.replace(
            options,
            limit=header.get("limit"),
            tags=tuple(header.get("tags") or ()),
            vars={**recorded, **options.vars},
        )

    async def _tiers(self, plans: list[TierPlan]) -> None:
        for at, plan in enumerate(plans):
            if not await self._approved(plan):
                return
            failures = 0
            for number, batch in enumerate(plan.batches, 1):
                names = tuple(host.name for host in batch)
                if plan.tier is not None or len(plan.batches) > 1:
                    self._progress.on(TierStarted(plan.title, number, len(plan.batches), names))
                failures += await self._batch(batch)
                last = number == len(plan.batches)
                if failures > plan.max_failures and not (last and at == len(plans) - 1):
                    share = f"{failures} of {len(plan.hosts)} hosts"
                    self.report.stopped = f"{share} of tier {plan.title} failed; the rest is held back"
                    return

    async def _approved(self, plan: TierPlan) -> bool:
        """Ask for a gated tier, unless nothing of it can change or is left to do; a refusal stops the run."""
        hosts = [host.name for host in plan.hosts]
        if plan.tier is None or not plan.tier.approve or self._options.yes or self._options.check:
            return True
        if all(map(self._is_done, hosts)):
            return True
        approver = self._options.approver or ask_at_terminal
        approval = Approval(self.report.run, plan.title, hosts, self.report.totals)
        try:
            with self._progress.paused():
                answer = await approver(approval)
        except ApprovalMissing as error:
            self.report.stopped = f"{error.message} ({error.hint})" if error.hint else error.message
            self.report.stopped_by_gate = True
            return False
        if not answer:
            self.report.stopped = f"tier {plan.title} was not approved; go on with --resume {self.report.run}"
            self.report.stopped_by_gate = True
        return answer

    def _is_done(self, name: str) -> bool:
        state = self._past.hosts.get(name) if self._past is not None else None
        return state is not None and state.done

    async def _batch(self, batch: tuple[InventoryHost, ...]) -> int:
        """Run a batch's hosts, `forks` at once; return how many failed."""
        limiter = anyio.CapacityLimiter(self._options.forks)
        shared = Shared(self._connect, self._options, self._progress, self._journal, self._masker)
        steps = [pair for pair in self._runbook.all_steps() if pair[0].startswith("steps/")]
        always = [pair for pair in self._runbook.all_steps() if pair[0].startswith("always/")]
        runs = []
        for host in batch:
            state = self._past.hosts.get(host.name) if self._past is not None else None
            run = HostRun(host, self._sets[host.name], self._scopes[host.name], state, shared)
            runs.append(run)

        async def one(run: HostRun) -> None:
            async with limiter:
                self.report.hosts[run.report.name] = run.report
                try:
                    await run.run(steps, always)
                except anyio.get_cancelled_exc_class():
                    run.report.status = "failed"
                    raise

        async with anyio.create_task_group() as group:
            for run in runs:
                group.start_soon(one, run)
        await anyio.to_thread.run_sync(self._journal.sync)
        return sum(run.failed for run in runs)


def _first_ops_error(group: BaseExceptionGroup[BaseException]) -> OpsError | None:
    """Return the one error a caller can act on; None = a defect, which is shown whole."""
    for error in group.exceptions:
        found = _first_ops_error(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, OpsError):
            return found
    return None


async def run_runbook(
    runbook: Runbook,
    inventory: Inventory,
    connect: Connect | None,
    options: RunOptions | None,
    progress: Progress | None,
    settings: dict[str, Any],
) -> Report:
    """Run a runbook with the usual parts where none are given: the real transports, and a journal."""
    chosen = dataclasses.replace(options or RunOptions(), **settings)
    if connect is None:
        from opsexec.runbook.connector import connector

        connect = connector()
    return await execute(runbook, inventory, connect, chosen, progress, Journal(chosen.state_dir))
