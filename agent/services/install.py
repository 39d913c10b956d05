"""From a declaration to a service: made, judged where it waits, and only what passed is installed, enabled, started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from agent.services.acts import Act, do_all, now
from agent.services.artifact import Artifact, Places, auth_files, require_generated
from agent.services.check import checks
from agent.services.checks.image import image_inspected
from agent.services.declaration import Declaration
from agent.services.doctor import OF_A_SERVICE, Request, find_service, with_causes
from agent.services.engine import Engine
from agent.services.finding import Evidence, Finding, Fix
from agent.services.look import Look, Service
from agent.services.outcome import Outcome
from agent.services.overlay import OverlayProbe
from agent.services.probe import Probe, Unreadable
from agent.services.receipt import MARKER, Receipt
from agent.services.systemd_unit import make_unit
from agent.services.unit_state import unit_state
from agent.services.wrapper_script import make_wrapper
from opsexec import __version__
from opsexec.errors import UsageError
from opsexec.steps import MakeDir, ServiceControl, ServiceDefinition, WriteFile

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
    darwin: bool = False

    @property
    def unit(self) -> str:
        """The unit's name."""
        return self.service.unit


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
    if darwin:
        from agent.services.launchd_plist import make_plist

        definition = make_plist(declared, places, home)
    else:
        definition = make_unit(declared, places)
    artifacts = [make_wrapper(declared, places, darwin=darwin), *auth_files(declared, places), definition]
    receipt = _receipt(declared, service, artifacts)
    return Made(
        service=service, declared=declared, places=places, artifacts=artifacts, receipt=receipt, owner=owner,
        darwin=darwin,
    )  # fmt: skip


def _receipt(declared: Declaration, service: Service, artifacts: list[Artifact]) -> Receipt:
    scope = ["--user"] if service.user else []
    return Receipt(
        schema=1,
        name=service.name,
        installed_at=now(),
        files={each.path: each.sha256 for each in artifacts},
        unit=service.unit,
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
        executor, made.artifacts, made.unit, owner=made.owner, staged=made.places.staged if staged else None,
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
        elif not made.darwin and (await unit_state(look))["LoadState"] not in ("not-found",):
            state = await unit_state(look)
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
    user = made.service.user
    state = made.places.state
    receipt = msgspec.json.format(msgspec.json.encode(made.receipt), indent=1)
    acts = [
        Act("state-directory", MakeDir(state, mode="0755"), "what is the service's alone"),
        Act("receipt", WriteFile(f"{state}/receipt.json", data=receipt, mode="0644"), "what is installed"),
        Act("wrapper-directory", MakeDir(made.places.wrappers, mode="0755"), "where wrappers stand"),
    ]
    if any(each.kind == "auth" for each in made.artifacts):
        acts.append(Act("auth-directory", MakeDir(f"{state}/auth/docker", mode="0700"), "empty credentials"))
    acts.append(Act("unit-directory", MakeDir(made.places.units), "where definitions stand"))
    for each in made.artifacts:
        acts.append(Act(f"install-{each.kind}", WriteFile(each.path, data=each.data, mode=each.mode)))
    if not made.darwin:
        acts.append(Act("reload", ServiceDefinition(made.unit, "reload", user), "let the manager read it"))
    return acts


def blocked(findings: list[Finding]) -> list[Finding]:
    """Return what keeps a preflight from passing, but for what only waits to be staged."""
    return [
        each for each in findings if each.blocks_preflight and not (each.verdict == "unknown" and WAITS in each.summary)
    ]


async def stage(executor: Executor, request: Request, *, execute: bool) -> Outcome:
    """Generate, put aside, lint and preflight; a failed preflight stages all the same. Raises OpsError."""
    made = await make(executor, request)
    acts = stage_acts(made)
    done = await do_all(executor, acts) if execute else []
    written = execute and all(each.rc == 0 for each in done)
    findings = await judge(executor, made, staged=written, run_as=request.run_as)
    notes = _verdict(findings)
    ok = not blocked(findings) and (written or not execute)
    return Outcome(ok=ok, plan=acts, done=done, findings=findings, notes=notes)


def _verdict(findings: list[Finding]) -> list[str]:
    names = ", ".join(dict.fromkeys(each.id for each in blocked(findings)))
    return [f"preflight: not passed ({names})" if names else "preflight: passed"]


async def install(executor: Executor, request: Request, *, execute: bool) -> Outcome:
    """Stage, install what passed, enable what is installed and declared enabled; raises OpsError."""
    made = await make(executor, request)
    staged = await stage(executor, request, execute=execute)
    if not staged.ok:
        staged.notes.append("nothing was installed" if execute else "nothing would be installed")
        return staged
    if made.darwin:
        raise UsageError("on macOS a service is staged, and not installed: nobody has tried launchd", hint="see docs")
    made.receipt = await _with_image(executor, made)
    acts = install_acts(made)
    if made.declared.enable:
        enable = ServiceControl(made.unit, "enable", made.service.user)
        acts.append(Act("enable", enable, "declared enabled"))
    plan = staged.plan + acts
    if not execute:
        return Outcome(ok=True, plan=plan, findings=staged.findings, notes=staged.notes)
    done = await do_all(executor, acts)
    ok = len(done) == len(acts) and all(each.rc == 0 for each in done)
    notes = [*staged.notes, *(f"{each.id} failed: {each.error}" for each in done if each.rc != 0)]
    if ok:
        state = await unit_state(Look(Probe(executor, run_as=request.run_as), made.service))
        ok = state["LoadState"] == "loaded"
        notes.append(f"{made.unit} is {state['LoadState']}, {state.get('UnitFileState', '')}, {state['ActiveState']}")
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
