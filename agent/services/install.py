"""From a declaration to a service: made, judged where it waits, and only what passed is installed, enabled, started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from agent.services.acts import Act, Say, do_all, now, unheard
from agent.services.artifact import Artifact, Places, auth_files, require_generated
from agent.services.check import checks
from agent.services.checks.image import image_inspected
from agent.services.declaration import Declaration
from agent.services.doctor import OF_A_SERVICE, Request, find_service, with_causes
from agent.services.engine import Engine
from agent.services.finding import Evidence, Finding, Fix
from agent.services.look import Look, Service
from agent.services.manager import Manager
from agent.services.managers import manager_of
from agent.services.outcome import Outcome
from agent.services.overlay import OverlayProbe
from agent.services.probe import FileText, Probe, Unreadable
from agent.services.receipt import MARKER, Receipt
from agent.services.systemd_manager import SystemdManager
from agent.services.systemd_unit import make_unit
from agent.services.wrapper_script import make_wrapper
from opsexec import __version__
from opsexec.errors import UsageError
from opsexec.steps import MakeDir, WriteFile

if TYPE_CHECKING:
    from opsexec.executor import Executor

WAITS = "isn't on the host yet"
"""What a check says of a file that only `stage` puts where systemd can read it."""


class Made(msgspec.Struct, kw_only=True):
    """What a declaration comes to on this host."""

    service: Service
    declared: Declaration
    places: Places
    artifacts: list[Artifact]
    receipt: Receipt
    owner: tuple[str, int]
    manager: Manager
    logs: str | None = None
    darwin: bool = False

    @property
    def unit(self) -> str:
        """What its manager calls it."""
        return self.manager.unit


async def make(executor: Executor, request: Request) -> Made:
    """Evaluate the declaration and generate everything; raises UsageError. The host is only read."""
    probe = Probe(executor, run_as=request.run_as)
    service = await find_service(probe, request)
    declared = service.declaration
    if declared is None:
        raise UsageError(f"nothing is declared of {service.name}", hint="write /etc/ops-agent/services/NAME.toml")
    if declared.name != service.name:
        raise UsageError(f"the declaration is of {declared.name}, not of {service.name}", hint="name it by its name")
    require_generated(declared)
    look = Look(probe, service)
    try:
        home, darwin = await look.home(), await look.system() == "Darwin"
        owner = (await look.user_name(), await look.uid())
    except Unreadable as error:
        raise UsageError(f"the host can't be read: {error.reason}", hint=error.hint) from error
    if not service.user and owner[1] != 0:
        raise UsageError("a service of the system is installed by root", hint="--as root, or declare scope = user")
    places = Places.of(service.name, user=service.user, home=home, darwin=darwin)
    manager: Manager
    logs = None
    if darwin:
        from agent.services.launchd_identity import Identity, domain_of
        from agent.services.launchd_job import parse_job
        from agent.services.launchd_manager import LaunchdManager
        from agent.services.launchd_plist import log_directory, make_plist

        definition = make_plist(declared, places, home)
        job = parse_job(FileText(definition.path, definition.path, definition.data, definition.mode))
        who = Identity(job.label, await domain_of(look, job.keys), definition.path)
        manager = LaunchdManager(look, places, who)
        if declared.logs.stdout is None or declared.logs.stderr is None:
            logs = log_directory(declared, home)
    else:
        definition = make_unit(declared, places)
        manager = SystemdManager(look, places)
    artifacts = [make_wrapper(declared, places, darwin=darwin), *auth_files(declared, places), definition]
    receipt = _receipt(declared, service, artifacts, manager.unit)
    return Made(
        service=service, declared=declared, places=places, artifacts=artifacts, receipt=receipt, owner=owner,
        manager=manager, logs=logs, darwin=darwin,
    )  # fmt: skip


def _receipt(declared: Declaration, service: Service, artifacts: list[Artifact], unit: str) -> Receipt:
    scope = ["--user"] if service.user else []
    return Receipt(
        schema=1,
        name=service.name,
        installed_at=now(),
        files={each.path: each.sha256 for each in artifacts},
        unit=unit,
        uninstall=[["ops-agent", "uninstall", service.name, *scope, "--execute"]],
        quarantine=[["ops-agent", "quarantine", service.name, *scope, "--execute"]],
        image=declared.image,
        runtime_auth=declared.auth.mode if declared.runtime == "podman" else None,
        pull_auth="none" if declared.runtime == "podman" and declared.podman.pull != "always" else None,
        agent=f"ops-agent {__version__}",
    )


async def judge(executor: Executor, made: Made, *, staged: bool, run_as: str | None = None) -> list[Finding]:
    """Return what the doctor says of the files and the host, as if they were installed; raises OpsError."""
    probe = OverlayProbe(
        executor, made.artifacts, made.service.unit, owner=made.owner, staged=made.places.staged if staged else None,
        run_as=run_as,
    )  # fmt: skip
    service = made.service._replace(receipt=made.receipt, problem=None)
    every = checks(OF_A_SERVICE)
    chosen = [each for each in every if (each.blocks or each.family == "lint") and not each.opt_in]
    found = await Engine(Look(probe, service), f"service:{service.name}").run(with_causes(chosen, every))
    wanted = {each.id for each in chosen}
    return [*await _in_the_way(executor, made), *(each for each in found if each.id in wanted)]


async def _in_the_way(executor: Executor, made: Made) -> list[Finding]:
    """Return a finding for what stands where the definition goes, and isn't ours."""
    look = Look(Probe(executor), made.service)
    text = None
    path = made.artifacts[-1].path
    try:
        stat = await look.probe.stat(path)
        if stat.exists and stat.kind == "link" and stat.target == "/dev/null":
            text = f"{made.unit} is masked: release it first"
        elif stat.exists and stat.kind != "file":
            text = f"{path} is a {stat.kind}"
        elif stat.exists:
            head = (await look.probe.read(path)).data[:4096]
            if (MARKER.lstrip("# ") + made.service.name).encode() not in head.split(b"[Unit]")[0]:
                text = f"{path} was not made by ops-agent"
        elif (await look.probe.stat(f"{made.places.held}/restore.json")).exists:
            text = f"{made.unit} is in quarantine: release it first"
        else:
            state = await (await manager_of(look)).state()
            if state["LoadState"] != "not-found":
                text = f"{made.unit} is there already: {state.get('FragmentPath') or state['LoadState']}"
    except Unreadable as error:
        text = f"what stands at {path} can't be read: {error.reason}"
    if text is None:
        return []
    fix = Fix(text="quarantine it, or take it away by hand", argv=("ops-agent", "quarantine", made.service.name))
    return [
        Finding(
            id="svc.conflict", subject=f"service:{made.service.name}", verdict="fail", severity="high", summary=text,
            evidence=(Evidence(path=path),), fix=fix, blocks_preflight=True,
        )
    ]  # fmt: skip


def stage_acts(made: Made) -> list[Act]:
    """Return the acts that put definition and wrapper where systemd's own tools can read them, and nothing starts."""
    acts = [Act("stage-directory", MakeDir(made.places.staged, mode="0700"), "where files wait")]
    for each in made.artifacts:
        if each.kind != "auth":
            mode = "0700" if each.kind == "wrapper" else "0600"
            path = f"{made.places.staged}/{each.path.rpartition('/')[2]}"
            acts.append(Act(f"stage-{each.kind}", WriteFile(path, data=each.data, mode=mode), each.path))
    return acts


def install_acts(made: Made) -> list[Act]:
    """Return the acts that install: the receipt first, so that whatever got there can be taken away again."""
    state = made.places.state
    receipt = msgspec.json.format(msgspec.json.encode(made.receipt), indent=1)
    acts = [
        Act("state-directory", MakeDir(state, mode="0755"), "what is the service's alone"),
        Act("receipt", WriteFile(f"{state}/receipt.json", data=receipt, mode="0644"), "what is installed"),
        Act("wrapper-directory", MakeDir(made.places.wrappers, mode="0755"), "where wrappers stand"),
    ]
    if any(each.kind == "auth" for each in made.artifacts):
        acts.append(Act("auth-directory", MakeDir(f"{state}/auth/docker", mode="0700"), "empty credentials"))
    if made.logs is not None:
        acts.append(Act("log-directory", MakeDir(made.logs, mode="0750"), "where it logs"))
    acts.append(Act("unit-directory", MakeDir(made.places.units), "where definitions stand"))
    if not made.declared.enable:
        acts += made.manager.withhold()
    for each in made.artifacts:
        acts.append(Act(f"install-{each.kind}", WriteFile(each.path, data=each.data, mode=each.mode)))
    acts += made.manager.reload("let the manager read it")
    return acts + made.manager.enable() if made.declared.enable else acts


def blocked(findings: list[Finding]) -> list[Finding]:
    """Return what keeps a preflight from passing, but for what only waits to be staged."""
    return [
        each for each in findings if each.blocks_preflight and not (each.verdict == "unknown" and WAITS in each.summary)
    ]


async def stage(executor: Executor, request: Request, *, execute: bool, say: Say = unheard) -> Outcome:
    """Generate, put aside, lint and preflight; a failed preflight stages all the same. Raises OpsError."""
    made = await make(executor, request)
    if execute:
        for each in made.manager.caveats:
            say(each)
    return await _stage(executor, request, made, execute=execute)


async def _stage(executor: Executor, request: Request, made: Made, *, execute: bool) -> Outcome:
    acts = stage_acts(made)
    done = await do_all(executor, acts) if execute else []
    written = execute and all(each.rc == 0 for each in done)
    findings = await judge(executor, made, staged=written, run_as=request.run_as)
    notes = [*_verdict(findings), *made.manager.caveats]
    ok = not blocked(findings) and (written or not execute)
    return Outcome(ok=ok, plan=acts, done=done, findings=findings, notes=notes)


def _verdict(findings: list[Finding]) -> list[str]:
    names = ", ".join(dict.fromkeys(each.id for each in blocked(findings)))
    return [f"preflight: not passed ({names})" if names else "preflight: passed"]


async def install(executor: Executor, request: Request, *, execute: bool, say: Say = unheard) -> Outcome:
    """Stage, install what passed, enable what is installed and declared enabled; raises OpsError."""
    made = await make(executor, request)
    if execute:
        for caveat in made.manager.caveats:
            say(caveat)
    staged = await _stage(executor, request, made, execute=execute)
    if not staged.ok:
        staged.notes.append("nothing was installed" if execute else "nothing would be installed")
        return staged
    made.receipt = await _with_image(executor, made)
    acts = install_acts(made)
    plan = staged.plan + acts
    if not execute:
        return Outcome(ok=True, plan=plan, findings=staged.findings, notes=staged.notes)
    done = await do_all(executor, acts)
    ok = len(done) == len(acts) and all(each.rc == 0 for each in done)
    notes = [*staged.notes, *(f"{each.id} failed: {each.error}" for each in done if each.rc != 0)]
    if ok:
        after = await manager_of(Look(Probe(executor, run_as=request.run_as), made.service))
        state = await after.state()
        ok = state["LoadState"] == "loaded"
        notes.append(f"{made.unit} is {state['LoadState']}, {state.get('UnitFileState', '')}, {state['ActiveState']}")
        if state.get("Loaded") == "yes":
            notes.append("launchd goes on with the definition it has loaded: `ops-agent restart` takes the new one")
    return Outcome(ok=ok, plan=plan, done=staged.done + done, findings=staged.findings, notes=notes)


async def _with_image(executor: Executor, made: Made) -> Receipt:
    """Return the receipt with where the image comes from, as far as podman knows."""
    if made.declared.runtime != "podman" or not made.declared.image:
        return made.receipt
    try:
        found = await image_inspected(Look(Probe(executor), made.service), made.declared.image)
    except Unreadable:
        return made.receipt
    digests = found.get("RepoDigests")
    source = digests[0] if isinstance(digests, list) and digests else None
    return msgspec.structs.replace(
        made.receipt,
        image_id=str(found.get("Id", "")) or None,
        source_image=str(source) if source else None,
    )
