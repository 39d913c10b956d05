"""lint.*: what a unit's command lines, and the scripts behind them, really start."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from agent.services.check import check
from agent.services.command_line import (
    RUNTIMES,
    ContainerRun,
    base,
    container_runs,
    in_temporary,
    inner_scripts,
    is_remote_image,
    redirections,
    script_commands,
    split_exec,
)
from agent.services.definition import Script, definition, scripts, where
from agent.services.finding import Evidence, Fix, Ruling, failed, passed, skipped, warned
from agent.services.look import Look
from agent.services.unit_file import Unit

LINUX = ("Linux",)


IN_ANY_LANGUAGE = re.compile(
    r"(?:^|[\"'/])(podman|docker|nerdctl)[\"']?[, ]+(?:[\"']--[^\"']*[\"'], *)*[\"']?(run|create)\b"
)
"""A container started from a script of another language, by the look of a line."""


class Start(msgspec.Struct, frozen=True):
    """A container run and where it is written; `ours`: in a script as our own install left it."""

    run: ContainerRun
    evidence: Evidence
    ours: bool


def starts_in_unit(unit: Unit) -> Iterator[Start]:
    """Yield the containers that a unit's own command lines start."""
    for setting in unit.commands():
        for run in container_runs(split_exec(setting.value)[1]):
            yield Start(run, where(setting), False)


def starts_in_script(script: Script) -> Iterator[Start]:
    """Yield the containers that a script starts."""
    seen = set()
    for command in script_commands(script.file.text):
        for run in container_runs(command, in_shell=True):
            key = (run.program, run.verb, run.image)
            if key not in seen:
                seen.add(key)
                yield Start(run, Evidence(path=script.file.asked, excerpt=" ".join(run.words)[:300]), script.ours)
    if not seen:
        for number, line in enumerate(script.file.text.splitlines()[:20_000], 1):
            match = None if line.lstrip().startswith("#") else IN_ANY_LANGUAGE.search(line[:2000])
            if match:
                run = ContainerRun(match[1], match[2], None, None, None, (), True)
                yield Start(run, Evidence(path=script.file.asked, line=number, excerpt=line.strip()[:300]), script.ours)


async def starts(look: Look) -> list[Start]:
    """Return every container that the service's definition or its scripts start."""
    return await look.probe.memo(("starts", look.service.unit, look.service.user), lambda: _starts(look))


async def _starts(look: Look) -> list[Start]:
    unit = (await definition(look)).unit
    found = list(starts_in_unit(unit))
    for setting in unit.commands()[:64]:
        words = split_exec(setting.value)[1]
        disguised = await led_to(look, words[0]) if words else ""
        if disguised in RUNTIMES and base(words[0]) not in RUNTIMES:
            found += [Start(run, where(setting), False) for run in container_runs([disguised, *words[1:]])]
    for script in await scripts(look):
        found += starts_in_script(script)
    return found


async def led_to(look: Look, program: str) -> str:
    """Return the name of the program that a path's link leads to; empty where it is no link."""
    if not program.startswith("/") or not program.isprintable() or "%" in program:
        return ""
    return base((await look.probe.stat(program)).target or "")


@check(
    "lint.raw-runtime-run", "service", reads="Exec* lines and the scripts they start, also inside `sh -c`",
    fails_when="it starts a container by itself, past the wrapper that bounds it", severity="high", platforms=LINUX,
    blocks=True,
)  # fmt: skip
async def raw_runtime_run(look: Look) -> Ruling:
    """Look for `podman run` and its like."""
    raw = [each for each in await starts(look) if not each.ours]
    if raw:
        fix = Fix(text="declare it (runtime = podman) and let ops-agent make the wrapper")
        run = raw[0].run
        text = f"it runs `{run.program} {run.verb}` by itself" + (" in a shell" if run.in_shell else "")
        return failed(text, *(each.evidence for each in raw[:10]), fix=fix)
    return passed("no container is started past a wrapper")


@check(
    "lint.remote-image", "service", reads="image references on command lines, in scripts and in the declaration",
    fails_when="a registry is asked at run time, without a service account", severity="high", platforms=LINUX,
    blocks=True,
)  # fmt: skip
async def remote_image(look: Look) -> Ruling:
    """Rule on where images come from."""
    declared = look.declared
    remote = [each for each in await starts(look) if each.run.image and is_remote_image(each.run.image)]
    evidence = [each.evidence for each in remote]
    names = [str(each.run.image) for each in remote]
    if declared is not None and declared.image and is_remote_image(declared.image):
        names.insert(0, declared.image)
    if not names:
        return passed("no image of a registry is named")
    if declared is not None and declared.auth.mode == "service-account":
        return passed("images of a registry, under a service account", *evidence)
    fix = Fix(text="pull it by hand once, and tag it localhost/NAME")
    return failed(f"{names[0][:120]} may be pulled from a registry at run time", *evidence[:10], fix=fix)


@check(
    "lint.pull-policy", "service", reads="`--pull` on command lines and in scripts",
    fails_when="the authfile is declared empty, and a run may pull", platforms=LINUX, blocks=True,
)  # fmt: skip
async def pull_policy(look: Look) -> Ruling:
    """Rule on whether a start may pull."""
    if look.declared is not None and look.declared.auth.mode != "empty-authfile":
        return skipped(f"credentials are declared as {look.declared.auth.mode}")
    runs = [each for each in await starts(look) if each.run.verb in ("run", "create")]
    if not runs:
        return skipped("it starts no container")
    wrong = [each for each in runs if each.run.pull != "never"]
    if wrong:
        return failed("a start may pull: it has no --pull=never", *(each.evidence for each in wrong[:10]))
    return passed("no start pulls")


@check(
    "lint.log-tmp", "service", reads="StandardOutput=, StandardError=, redirections of commands and scripts; [logs]",
    fails_when="it logs into a directory that anyone may write to", platforms=LINUX, blocks=True,
)  # fmt: skip
async def log_tmp(look: Look) -> Ruling:
    """Look for logs in temporary directories."""
    unit = (await definition(look)).unit
    wrong = []
    for key in ("StandardOutput", "StandardError"):
        for setting in unit.all("Service", key):
            how, _, path = setting.value.partition(":")
            if how in ("file", "append", "truncate") and in_temporary(path):
                wrong.append(where(setting))
    for setting in unit.commands():
        for script in inner_scripts(split_exec(setting.value)[1]):
            if any(in_temporary(path) for path in redirections(script)):
                wrong.append(where(setting))
    for each in await scripts(look):
        for path in redirections(each.file.text):
            if in_temporary(path):
                wrong.append(Evidence(path=each.file.asked, excerpt=f"> {path}"))
    declared = look.declared.logs.paths if look.declared else []
    wrong += [Evidence(excerpt=f"[logs] {path}") for path in declared if in_temporary(path)]
    if wrong:
        fix = Fix(text="log to the journal, or to a directory of the service's own (LogsDirectory=)")
        return failed("it logs into a directory that anyone may write to", *wrong[:10], fix=fix)
    return passed("it logs where only it can")


@check(
    "lint.shell-c", "service", reads="Exec* lines", fails_when="a shell is handed a script on the command line",
    platforms=LINUX, severity="low",
)  # fmt: skip
async def shell_c(look: Look) -> Ruling:
    """Look for `sh -c`."""
    unit = (await definition(look)).unit
    found = [each for each in unit.commands() if inner_scripts(split_exec(each.value)[1])]
    if found:
        return warned("a shell is handed a script on its command line", *(where(each) for each in found[:10]))
    return passed("no shell is handed a script")


@check(
    "lint.opaque-nix", "service", reads="the programs of Exec* lines",
    fails_when="a program is named by its store path, which the next garbage collection may take", platforms=LINUX,
)  # fmt: skip
async def opaque_nix(look: Look) -> Ruling:
    """Look for store paths on command lines."""
    unit = (await definition(look)).unit
    found = [
        each for each in unit.commands() if any(w.startswith("/nix/store/") for w in split_exec(each.value)[1][:1])
    ]
    if found:
        fix = Fix(text="install it into a profile, and name it by the profile's path")
        return warned("its program is a store path", *(where(each) for each in found[:10]), fix=fix)
    return passed("its programs have lasting names")


def programs(unit: Unit) -> list[str]:
    """Return the absolute programs of a unit's command lines."""
    words = [split_exec(each.value)[1] for each in unit.commands()]
    return sorted({each[0] for each in words if each and each[0].startswith("/") and base(each[0])})
