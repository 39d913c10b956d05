"""A unit's definition as it stands on disk: its file, its drop-ins, and the scripts it starts."""

from __future__ import annotations

import hashlib

import msgspec

from agent.services.command_line import RUNNERS, base, script_commands, split_exec
from agent.services.finding import Evidence
from agent.services.launchd_job import find_job
from agent.services.look import Look
from agent.services.probe import FileText, Unreadable
from agent.services.restart_limits import DEFAULT_BURST, DEFAULT_INTERVAL_S, DEFAULT_RESTART_S, Limits
from agent.services.timespan import seconds
from agent.services.unit_file import Setting, Unit, UnitText, parse_unit
from agent.services.unit_state import unit_state

SYSTEM_PATHS = (
    "/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
    "/lib/systemd/system",
)  # fmt: skip
USER_PATHS = (
    "/etc/systemd/user", "/run/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user",
)  # fmt: skip
"""Where units stand, best first; systemd.unit(5). A user's own directories come before USER_PATHS."""

MAX_DROP_INS = 64
MAX_SCRIPTS = 24
MAX_SCRIPT_BYTES = 256 << 10
ROOT = "lint.unit-syntax"
"""The check that says what is wrong when a definition can't be read at all."""


class Definition(msgspec.Struct, frozen=True):
    """`files`: the unit's file first, then its drop-ins; `unit`: all of them as one."""

    files: tuple[FileText, ...]
    unit: Unit

    @property
    def main(self) -> FileText:
        """The unit's own file."""
        return self.files[0]

    def limits(self) -> Limits:
        """The restart limits as written; where nothing is written, systemd's own defaults."""
        unit = self.unit
        interval = unit.value("Unit", "StartLimitIntervalSec") or unit.value("Unit", "StartLimitInterval")
        interval = interval or unit.value("Service", "StartLimitInterval")  # systemd.service(5) before v230, still read
        burst = unit.value("Unit", "StartLimitBurst") or unit.value("Service", "StartLimitBurst")
        between = seconds(unit.value("Service", "RestartSec") or f"{DEFAULT_RESTART_S}s")
        window = seconds(interval or f"{DEFAULT_INTERVAL_S}s")
        return Limits(
            restart=unit.value("Service", "Restart", "no"),
            restart_s=DEFAULT_RESTART_S if between is None else between,
            interval_s=DEFAULT_INTERVAL_S if window is None else window,
            burst=int(burst) if burst.isdigit() and len(burst) < 10 else DEFAULT_BURST,
        )


def where(setting: Setting) -> Evidence:
    """Return a setting as evidence."""
    return Evidence(path=setting.path, line=setting.line or None, excerpt=f"{setting.key}={setting.value[:300]}")


async def unit_paths(look: Look) -> tuple[str, ...]:
    """Return the directories this service's unit may stand in, best first."""
    if not look.service.user:
        return SYSTEM_PATHS
    home = await look.home()
    runtime = await look.runtime_dir()
    own = [f"{home}/.config/systemd/user", *([f"{runtime}/systemd/user"] if runtime else ())]
    return (*own, *USER_PATHS[:2], f"{home}/.local/share/systemd/user", *USER_PATHS[2:])


async def definition(look: Look) -> Definition:
    """Return the unit's definition; raises Unreadable where there is none, it can't be read whole, or it isn't text."""
    found = await as_it_stands(look)
    for text in found.unit.files:
        if text.binary:
            raise Unreadable(f"{text.path} isn't text", Evidence(path=text.path), root=ROOT)
    return found


async def as_it_stands(look: Look) -> Definition:
    """Return the unit's definition, text or not; raises Unreadable as `definition`."""
    return await look.probe.memo(("definition", look.service.unit, look.service.user), lambda: _definition(look))


async def _definition(look: Look) -> Definition:
    if await look.system() == "Darwin":
        job = await find_job(look)
        return Definition((job.file,), Unit([job.as_unit()]))
    try:
        state = await unit_state(look)
        fragment, drop_ins = state.get("FragmentPath", ""), state.get("DropInPaths", "").split()
    except Unreadable:
        fragment, drop_ins = "", []  # no manager answers: the files speak for themselves
    if not fragment:
        fragment, drop_ins = await _search(look)
    if not fragment:
        raise Unreadable(f"there is no definition of {look.service.unit} on this host", root="svc.state")
    if len(drop_ins) > MAX_DROP_INS:
        raise Unreadable(f"{look.service.unit} has {len(drop_ins)} drop-ins", root=ROOT)
    files = []
    for path in (fragment, *drop_ins):
        try:
            files.append(await look.probe.read(path))
        except Unreadable as error:
            raise Unreadable(error.reason, *error.evidence, hint=error.hint, root=ROOT) from error
    texts: list[UnitText] = [parse_unit(file.data, file.asked) for file in files]
    return Definition(tuple(files), Unit(texts))


async def _search(look: Look) -> tuple[str, list[str]]:
    """Find the unit's file and drop-ins where a manager would; the first directory that has a name wins."""
    unit = look.service.unit
    main = ""
    names: dict[str, str] = {}
    for directory in await unit_paths(look):
        if not main:
            found = await look.probe.stat(f"{directory}/{unit}")
            if found.exists and not (found.kind == "link" and found.target == "/dev/null"):
                main = f"{directory}/{unit}"
        listed = await look.probe.survey(f"{directory}/{unit}.d", max_entries=MAX_DROP_INS + 1)
        for entry in listed.entries:
            name = base(entry.path)
            if name.endswith(".conf"):
                names.setdefault(name, entry.path)
    return main, [names[name] for name in sorted(names)]


class Script(msgspec.Struct, frozen=True):
    """A script that a unit starts. `setting`: the line that names it; `ours`: as our own install left it."""

    file: FileText
    setting: Setting
    ours: bool


async def scripts(look: Look) -> list[Script]:
    """Return the scripts among the programs a unit starts; what can't be read is left out (lint.wrapper says so)."""
    return await look.probe.memo(("scripts", look.service.unit, look.service.user), lambda: _scripts(look))


async def _scripts(look: Look) -> list[Script]:
    """Read the programs of every command line, and of every script found, as far as MAX_SCRIPTS goes."""
    found: list[Script] = []
    receipt = look.service.receipt
    pending = [
        (each, path) for each in (await definition(look)).unit.commands() for path in script_candidates(each.value)
    ]
    seen: set[str] = set()
    total = 0
    while pending and len(seen) < MAX_SCRIPTS:
        setting, path = pending.pop(0)
        if path in seen:
            continue
        seen.add(path)
        try:
            file = await look.probe.read(path)
        except Unreadable:
            continue
        if file.data[:2] != b"#!" and (file.data.startswith(b"\x7fELF") or b"\0" in file.data[:4096]):
            continue
        total += len(file.data)
        if total > MAX_SCRIPT_BYTES:
            raise Unreadable(
                f"the scripts of {look.service.unit} are over {MAX_SCRIPT_BYTES >> 10} KiB", root="lint.wrapper"
            )
        ours = receipt is not None and receipt.files.get(path) == hashlib.sha256(file.data).hexdigest()
        found.append(Script(file, setting, ours))
        inner = [words for words in script_commands(file.text) if words[0].startswith("/") or base(words[0]) in RUNNERS]
        pending += [(setting, word) for words in inner[:200] for word in words[:4] if _is_script_path(word)]
    return found


def _is_script_path(word: str) -> bool:
    return (
        word.startswith("/")
        and not word.startswith(("/dev/", "/proc/", "/sys/"))
        and word.isprintable()
        and "*" not in word
    )


def script_candidates(command: str) -> list[str]:
    """Return the files of a command line that may be scripts: its program, and a shell's first plain word."""
    _, words = split_exec(command)
    found = [words[0]] if words and words[0].startswith("/") else []
    if found and base(found[0]) in ("sh", "bash", "dash", "env", "python3", "zsh"):
        found = [word for word in words[1:4] if word.startswith("/")][:1]
    return [path for path in found if "\n" not in path and "%" not in path]
