"""`bottle start` and `bottle resume`: read, show, ask, launch, wait, and say how it ended."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bottle import changed, credentials, hosting, skills
from bottle.attended import Attended, Through, attend
from bottle.backends.base import Place
from bottle.backends.by_name import backend
from bottle.commands.outcome import of_a_bottle
from bottle.errors import BadManifest, CredentialMissing, HostUnready
from bottle.host_keys import known
from bottle.images import agent_image
from bottle.limits import held_here, limits
from bottle.manifest import kept as kept_manifests
from bottle.manifest.store import Loaded, home_root, load_directories
from bottle.plan import BACKENDS, BottlePlan, Intent, make_plan
from bottle.preflight import preflight, shown
from bottle.providers.base import HostFacts
from bottle.runtime import GitRuntime, Runtime, find_runtime, with_git
from bottle.screen import on_screen, require_none
from bottle.state import Metadata, State, new_identity, require_backend, this_process
from bottle.supervise import wait_s
from bottle.telling import telling
from bottle.tools import with_tools
from bottle.workspace.keeping import kept, looked_at
from opsexec.errors import OpsError, UsageError

SAMPLE = "00000000"
MAX_TOLD = 40


def load(agent: str, warn: bool = True) -> Loaded:
    """Return an agent with its bottle, from the home root and the current directory."""
    manifests = load_directories(home_root(), Path.cwd())
    if warn:
        for warning in manifests.warnings:
            say(f"warning: {shown(warning)}")  # it names files, and a repository's are anybody's
    return manifests.load(agent)


def facts_for(loaded: Loaded) -> HostFacts:
    """Read what providers ask of the launcher."""
    settings = loaded.bottle.agent_provider
    now = time.time()
    if settings is None or not settings.forward_host_credentials:
        return HostFacts(now=now)
    home = os.environ.get("CODEX_HOME")
    path = (Path(home) if home else Path.home() / ".codex") / "auth.json"
    try:
        return HostFacts(path.read_text("utf-8"), now)
    except FileNotFoundError:
        return HostFacts(None, now)
    except (OSError, UnicodeDecodeError) as error:  # whose own words may hold some of the file
        from bottle.providers.codex_auth import HINT

        raise CredentialMissing(f"{path} can't be read ({type(error).__name__})", hint=HINT) from None


def sample_plan(agent: str, backend: str, arguments: tuple[str, ...] = ()) -> tuple[BottlePlan, Place]:
    """Return a plan that is only looked at: its identity stands for any, a missing command for any command."""
    loaded = load(agent)
    settings = loaded.bottle.agent_provider
    command = arguments or (("true",) if settings is None or settings.template == "command" else ())
    plan = planned(loaded, _intent(f"{agent}-{SAMPLE}", backend, None, command, facts_for(loaded), resume=False))
    return plan, place_of(plan.identity, runtime_or_sample(plan), {}, "")


def _runtime(plan: BottlePlan) -> Runtime:
    found = with_git(find_runtime()) if plan.repositories else find_runtime()
    return with_tools(found, plan) if plan.backend == "bwrap" else found


def runtime_or_sample(plan: BottlePlan) -> Runtime:
    """Return what a bundle runs on here; where nothing is set up yet, what stands for it in a plan only shown."""
    code = Path(__file__).parent.resolve()
    try:
        return _runtime(plan)
    except HostUnready:
        git = GitRuntime(
            "/opt/bottle/bin/python", ("/opt/bottle",), str(code.parent / "opsexec"), "/opt/bottle/gitleaks"
        )
        return Runtime("/opt/egress/bin/python", ("/opt/egress",), str(code), git)


def place_of(identity: str, runtime: Runtime, resolve: dict[str, tuple[str, int]], trust: str) -> Place:
    """Return where a bottle of this launcher is kept."""
    plain = None if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    return Place(str(State(home_root().resolve()).directory(identity)), runtime, resolve, trust, plain)


def _intent(
    identity: str, backend: str, cwd: str | None, arguments: tuple[str, ...], facts: HostFacts, *, resume: bool
) -> Intent:
    chosen = next(each for each in BACKENDS if each == backend)
    return Intent(identity, chosen, cwd, arguments, resume, facts)


def planned(loaded: Loaded, intent: Intent) -> BottlePlan:
    """Return the plan of a launch, with the Dockerfile that its image is built of where the backend needs one.

    An upstream whose host key the manifest doesn't name is held to what the launcher's own known hosts hold.
    """
    plan = make_plan(loaded, intent)
    if plan.repositories.keys() - plan.host_keys.keys():
        keys = {name: plan.host_keys.get(name) or known(each.upstream) for name, each in plan.repositories.items()}
        plan = dataclasses.replace(plan, host_keys=keys)
    if plan.backend != "docker":
        return plan
    image = agent_image(loaded.bottle.agent_provider, plan.provider.dockerfile, home_root())
    loose = [f"the image is built on {base}, whatever the engine holds by that name" for base in image.loose]
    return dataclasses.replace(plan, image=image, warnings=(*plan.warnings, *loose))


def start(arguments: argparse.Namespace) -> int:
    """Start an agent in a new bottle; returns the agent's exit status."""
    loaded = load(arguments.agent)
    cwd = str(Path.cwd()) if arguments.cwd else None
    facts = facts_for(loaded)
    identity = new_identity(arguments.agent)
    intent = _intent(identity, arguments.backend, cwd, tuple(arguments.arguments), facts, resume=False)
    plan = dataclasses.replace(planned(loaded, intent), limits=limits(arguments.limit))
    if arguments.dry_run:
        from bottle.dry_run import dry_run

        return dry_run(plan, arguments)
    metadata = Metadata(
        identity=identity,
        agent=arguments.agent,
        cwd=str(Path.cwd()),
        copy_cwd=arguments.cwd,
        started_at=time.time(),
        backend=arguments.backend,
        arguments=tuple(arguments.arguments),
        digest=plan.digest,
        limits=plan.limits.words,
        host=hosting.kept(hosting.asked(arguments)),
    )
    return _launch(plan, loaded, facts, metadata, arguments, resume=False)


def resume(arguments: argparse.Namespace) -> int:
    """Start a stopped bottle again, on the backend its metadata names; returns the agent's exit status."""
    state = State(home_root().resolve())
    metadata = state.read(arguments.identity)
    if state.alive(metadata.identity):  # nobody reads a summary and types secrets for nothing
        raise OpsError(f"bottle {metadata.identity} is running already", hint=f"bottle stop {metadata.identity}")
    backend = require_backend(metadata.backend, BACKENDS)
    manifests = load_directories(home_root(), Path(metadata.cwd))
    loaded = kept_manifests.load(state.directory(metadata.identity), manifests, metadata.agent)
    facts = facts_for(loaded)
    plan = planned(loaded, _intent(metadata.identity, backend, None, tuple(metadata.arguments), facts, resume=True))
    plan = dataclasses.replace(plan, limits=limits([*metadata.limits, *arguments.limit]))
    if metadata.copy_cwd:
        path = plan.workspace.path
        plan = dataclasses.replace(plan, workspace=dataclasses.replace(plan.workspace, workdir=path))
    if plan.digest != metadata.digest:
        say("note: manifests, host keys or the agent's words changed since this bottle ran: see the summary")
    metadata = dataclasses.replace(metadata, digest=plan.digest, started_at=time.time(), limits=plan.limits.words)
    return _launch(plan, loaded, facts, metadata, arguments, resume=True)


def resolve_option(texts: list[str]) -> dict[str, tuple[str, int]]:
    """Return `--resolve HOST=ADDRESS:PORT` options; raises UsageError for another shape, and for what is no address."""
    return dict(_resolved(text) for text in texts)


def _resolved(text: str) -> tuple[str, tuple[str, int]]:
    import ipaddress

    from bottle.manifest.names import host_name

    name, equals, target = text.partition("=")
    address, colon, port = target.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
    hint = "like api.test=127.0.0.7:8443, or api.test=[::1]:8443"
    if not (equals and colon and name and address and 0 < number < 65536):
        raise UsageError(f"--resolve {text[:80]!r} is not HOST=ADDRESS:PORT", hint=hint)
    try:
        host = host_name(name)
    except ValueError as error:
        raise UsageError(f"--resolve {text[:80]!r}: {name[:60]!r} {error}", hint=hint) from None
    inside = address[1:-1] if address[0] == "[" and address[-1] == "]" else address
    try:
        found = ipaddress.ip_address(inside)
    except ValueError:
        found = None
    if found is None or getattr(found, "scope_id", None) or (inside != address and found.version == 4):
        raise UsageError(f"--resolve {text[:80]!r}: {address[:60]!r} is no IP address", hint=hint)
    return host, (str(found), number)


def _launch(
    plan: BottlePlan,
    loaded: Loaded,
    facts: HostFacts,
    metadata: Metadata,
    arguments: argparse.Namespace,
    *,
    resume: bool,
) -> int:
    backend(plan.backend)
    if arguments.json:
        require_none(arguments)
    plan = dataclasses.replace(plan, supervise_wait_s=wait_s(os.environ))
    trust, resolved = trusted(arguments.upstream_ca), resolve_option(arguments.resolve)
    state = State(home_root().resolve())
    host = hosting.host_from(metadata.host)
    if host is None:
        place = place_of(plan.identity, _runtime(plan), resolved, trust)
    else:
        host, place = asyncio.run(hosting.settle(host, plan, resolved, trust))
        say(f"{'host':<13} {shown(host.url)} ({shown(place.state)})")
    asyncio.run(hosting.ask_engine(host, plan, place))  # without one nothing is made anywhere, and nothing is left
    bounds = held_here(plan.limits) if plan.backend == "bwrap" and host is None else None
    given = skills.found(plan.skills)
    document = changed.document(plan, skills.lines(given))
    for line in changed.differences(state.directory(plan.identity), document) if resume else ():
        say(f"since it ran: {shown(line)}")
    if resume:
        from bottle.operator.lapsed import lapsed

        for line in lapsed(state.directory(plan.identity), plan):
            say(shown(line))
    for line in (*preflight(plan, bounds), *skills.lines(given), *looked_at(plan, state.root)):
        say(line)
    if not arguments.yes and not confirmed():
        say("not started")
        return 1
    secrets = credentials.gather(plan, facts, _ask)
    for name in credentials.too_short(secrets):
        least = credentials.MIN_TOKEN
        say(f"warning: env {name} holds fewer than {least} characters: the gates won't know it in what leaves")
    directory = state.directory(plan.identity) if resume else state.place(plan.identity)
    with (
        telling() as told,
        of_a_bottle(state, plan.identity, asked=arguments.json) as outcome,
        state.held(plan.identity),
    ):
        # A bottle that ran before is no leftover, whatever becomes of this launch: its home holds the agent's work.
        phase = metadata.phase if resume else "launching"
        metadata = dataclasses.replace(metadata, phase=phase, launcher=this_process(), host=hosting.kept(host))
        state.write(metadata)
        running = dataclasses.replace(metadata, phase="running")
        changed.keep(directory, document)
        plan = skills.kept(kept(plan, directory), given, directory)
        with on_screen(arguments, plan, told) as person:
            tell = told if person is None else person.say
            output = outcome or person or Through()
            whole = Attended(plan, place, secrets, state, running, output, tell, Refusals(tell), resume, person, host)
            code = asyncio.run(attend(whole))
        if outcome is not None:
            outcome.exit_code = code
        # One that was stopped before it ever ran has nothing to go on with: it stays what `bottle cleanup` takes.
        if directory.exists() and state.read(plan.identity).phase != "launching":
            _keep(state, dataclasses.replace(running, phase="stopped"), loaded, told)
    return code


def _keep(state: State, ended: Metadata, loaded: Loaded, tell: Callable[[str], None]) -> None:
    """Write down how a bottle was left. Without room for that it can be resumed all the same, and its status stays."""
    try:
        state.write(ended)
        kept_manifests.keep(state.directory(ended.identity), loaded)
    except OSError as error:
        tell(f"warning: what the manifests say isn't kept ({error.strerror}): a resume reads them from the start")


class Refusals:
    """Tells the operator what the gates refused: each once, and no more than anybody reads."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._told: set[str] = set()
        self._tell = tell or say

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one decision."""
        if event.get("decision") == "allow" or len(self._told) > MAX_TOLD:
            return
        line = refused(event)
        if line in self._told:
            return
        self._told.add(line)
        self._tell(line if len(self._told) <= MAX_TOLD else "more is refused; the audit has each one")


def refused(event: dict[str, Any]) -> str:
    """Return a gate's denial as one line."""
    if event.get("event") == "git":
        gate, where = "the git gate", f"{event.get('action', '')} {event.get('repository', '')}"
    elif event.get("event") == "dns":
        gate, where = "the resolver", f"{event.get('kind', '')} {event.get('host', '')}"
    else:
        gate, where = "egress", f"{event.get('method', '')} {event.get('host', '')}{event.get('path', '')}"
    return f"{gate} refused {shown(where.strip())}: {shown(str(event.get('reason', '')))}"


def trusted(file: str | None) -> str:
    """Return the authorities of `--upstream-ca`, PEM; raises UsageError for a file that can't be read as such."""
    if file is None:
        return ""
    try:
        return Path(file).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--upstream-ca {file}: can't be read as PEM") from error


def confirmed(question: str = "start it?") -> bool:
    """Ask the operator; raises UsageError where nobody is there."""
    if not sys.stdin.isatty():
        raise UsageError("there is nobody to ask", hint="-y goes on without a question")
    try:
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise
    if not answer.endswith("\n"):
        print(file=sys.stderr)
    return answer.strip().lower() in ("y", "yes")


def _ask(question: str) -> str:
    import getpass

    if not sys.stdin.isatty():
        raise BadManifest(f"the manifest asks {question!r}, and there is nobody to ask", hint="run it on a terminal")
    try:
        value = getpass.getpass(f"{shown(question)}: ")
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise
    except EOFError:
        print(file=sys.stderr)
        value = ""
    if not value:
        raise CredentialMissing(f"nothing was typed for {question!r}", hint="an empty value stands in a manifest")
    return value


def say(line: str) -> None:
    """Tell the operator; the agent's own output has stdout to itself."""
    print(f"bottle: {line}", file=sys.stderr, flush=True)


async def remove(state: State, identity: str) -> None:
    """Take a bottle's directory away, under a grant for it alone."""
    from opsexec.capability import CapabilitySet
    from opsexec.local import LocalExec
    from opsexec.steps import RemoveFile

    path = str(state.directory(identity))
    granted = CapabilitySet.of(f"fs.remove:{path}", f"fs.remove:{path}/**")
    async with LocalExec(capabilities=granted) as ex:
        await ex.run(RemoveFile(path, recursive=True))
