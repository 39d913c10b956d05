"""Lint of a launchd property list from its bytes; launchd.plist(5) names the keys. Pure, and untested on a mac."""

from __future__ import annotations

import plistlib
import xml.parsers.expat
from collections.abc import Iterator
from typing import Any, NamedTuple

from agent.services.command_line import base, container_runs, in_temporary, inner_scripts
from agent.services.finding import Evidence, Ruling, failed, warned
from agent.services.plist_keys import (
    CALENDAR,
    DEPRECATED,
    LABEL,
    LIST_PATHS,
    PATHS,
    PROCESS_TYPES,
    SESSIONS,
    SOCKET,
    SUBKEYS,
    TYPES,
)
from agent.services.secret_shapes import SECRET_NAME, SECRET_VALUE
from opsexec.handlers.launchd import ODD_PLIST

SYNTAX = "lint.plist-syntax"
RESTART = "lint.restart-unbounded"
SESSION = "lint.session-type"
STOP = "lint.killmode"
DAEMONS = "/Library/LaunchDaemons/"
THROTTLE_S = 10
"""launchd's own default between two starts, in seconds."""


class Flaw(NamedTuple):
    """What is wrong, under the id of the check that says so."""

    id: str
    ruling: Ruling


def duplicate_keys(data: bytes) -> list[tuple[str, int]]:
    """Return the keys that stand twice in one dict of an XML property list, with their lines; plistlib hides them.

    Raises ValueError for what isn't well-formed.
    """
    parser = xml.parsers.expat.ParserCreate()
    stack: list[set[str]] = []
    text: list[str] | None = None
    found: list[tuple[str, int]] = []

    def start(name: str, _: dict[str, str]) -> None:
        nonlocal text
        if name == "dict":
            stack.append(set())
        text = [] if name == "key" else None

    def end(name: str) -> None:
        nonlocal text
        if name == "dict" and stack:
            stack.pop()
        elif name == "key" and text is not None and stack:
            key = "".join(text)
            if key in stack[-1]:
                found.append((key, parser.CurrentLineNumber))
            stack[-1].add(key)
            text = None

    def characters(more: str) -> None:
        if text is not None:
            text.append(more)

    def refuse(*_: object) -> None:
        raise ValueError("it declares entities")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except xml.parsers.expat.ExpatError as error:
        raise ValueError(f"line {error.lineno}: {xml.parsers.expat.ErrorString(error.code)}") from error
    return found


def flaws(data: bytes, path: str) -> list[Flaw]:
    """Return what is wrong with a property list, each under its check's id; empty when nothing is."""
    at = Evidence(path=path)
    found: list[Flaw] = []
    try:
        if not data.startswith(b"bplist"):
            for key, line in duplicate_keys(data):
                ruling = failed(f"the key {key[:60]} stands twice", Evidence(path=path, line=line))
                found.append(Flaw(SYNTAX, ruling))
        job = plistlib.loads(data)
    except ODD_PLIST as error:
        return [Flaw(SYNTAX, failed(f"it is no property list: {str(error)[:200]}", at))]
    if not isinstance(job, dict) or not all(isinstance(each, str) for each in job):
        return [Flaw(SYNTAX, failed("it holds no dict", at))]
    for id, rule in _RULES:
        for ruling in rule(job, path):
            found.append(Flaw(id, Ruling(verdict=ruling.verdict, summary=ruling.summary, evidence=(at,))))
    return found


def lint_plist(data: bytes, path: str) -> list[Ruling]:
    """Return everything that is wrong with a property list; empty when nothing is."""
    return [each.ruling for each in flaws(data, path)]


def _fits(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)


def _form(job: dict[str, Any], path: str) -> Iterator[Ruling]:
    for key, value in job.items():
        kinds = TYPES.get(key)
        if kinds is None:
            yield failed(_unknown(key, TYPES))
        elif not _fits(value, kinds):
            yield failed(f"{key} is a {type(value).__name__}")
        elif key in DEPRECATED:
            yield warned(f"{key} is deprecated")
        yield from _inner(key, value)
    label = job.get("Label")
    if not isinstance(label, str) or not LABEL.match(label):
        yield failed("Label is no reverse-DNS name")
    elif base(path) != f"{label}.plist" and base(path).endswith(".plist"):
        yield failed(f"Label {label} is not the file's name")
    if "Program" not in job and "BundleProgram" not in job and not job.get("ProgramArguments"):
        yield failed("neither Program nor ProgramArguments is there")


def _inner(key: str, value: object) -> Iterator[Ruling]:
    """Judge the keys of an inner dict, where launchd knows which there may be."""
    if not isinstance(value, dict):
        return
    if key == "Sockets":
        for each in value.values():
            for socket in each if isinstance(each, list) else [each]:
                yield from _known(key, socket if isinstance(socket, dict) else {}, SOCKET)
    elif key in SUBKEYS:
        yield from _known(key, value, SUBKEYS[key])


def _known(key: str, given: dict[str, Any], known: dict[str, tuple[type, ...]]) -> Iterator[Ruling]:
    for name, inner in given.items():
        kinds = known.get(name)
        if kinds is None:
            yield failed(f"{key}: {_unknown(str(name), known)}")
        elif not _fits(inner, kinds):
            yield failed(f"{key}: {name} is a {type(inner).__name__}")


def _unknown(key: str, known: dict[str, tuple[type, ...]]) -> str:
    import difflib

    near = difflib.get_close_matches(key, known, n=1)
    return f"unknown key {key[:60]!r}" + (f", meant is {near[0]}" if near else "")


def _values(job: dict[str, Any], _: str) -> Iterator[Ruling]:
    for key in (*PATHS, *LIST_PATHS):
        given = job.get(key)
        for value in given if isinstance(given, list) else [given]:
            if not isinstance(value, str):
                continue
            if "~" in value or "$" in value:
                yield failed(f"{key} has ~ or $, which launchd doesn't expand")
            elif not value.startswith("/"):
                yield failed(f"{key} is not absolute")
            elif key in LIST_PATHS and in_temporary(value):
                yield warned(f"{key} names a place that anyone may write to: anyone may start the job")
    umask = job.get("Umask")
    if isinstance(umask, int) and not isinstance(umask, bool) and umask in (22, 27, 77):
        yield warned(f"Umask {umask} is decimal to launchd; as octal it is written as a string")
    if "Disabled" in job:
        yield warned("Disabled is overruled by launchd's own database")
    kind = job.get("ProcessType")
    if isinstance(kind, str) and kind not in PROCESS_TYPES:
        yield failed(f"ProcessType {kind[:40]!r} is none")


def _calendar(job: dict[str, Any], _: str) -> Iterator[Ruling]:
    entries = job.get("StartCalendarInterval")
    sundays = set()
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, dict):
            continue
        for key, value in entry.items():
            least = 1 if key in ("Day", "Month") else 0
            if not _fits(value, (int,)) or not least <= value <= CALENDAR.get(key, -1):
                yield failed(f"StartCalendarInterval {str(key)[:40]} is out of range")
        if entry.get("Weekday") in (0, 7):
            sundays.add(entry["Weekday"])
    if len(sundays) == 2:
        yield warned("StartCalendarInterval has Weekday 0 and 7, which both are Sunday")


def _restarts(job: dict[str, Any], _: str) -> Iterator[Ruling]:
    keep = job.get("KeepAlive")
    if keep is True or (isinstance(keep, dict) and keep.get("SuccessfulExit") is True):
        at_load = ", and RunAtLoad begins it" if job.get("RunAtLoad") is True else ""
        yield failed(f"KeepAlive starts it again without end{at_load}")
    throttle = job.get("ThrottleInterval")
    if _fits(throttle, (int,)) and isinstance(throttle, int) and throttle < THROTTLE_S:
        yield failed(f"ThrottleInterval {throttle} is under {THROTTLE_S} s")
    if keep and "StartInterval" in job:
        yield failed("KeepAlive and StartInterval contradict each other")


def _words(job: dict[str, Any]) -> list[str]:
    arguments = job.get("ProgramArguments")
    words = [each for each in arguments if isinstance(each, str)] if isinstance(arguments, list) else []
    program = job.get("Program")
    return [program, *words[1:]] if isinstance(program, str) else words


def _program(job: dict[str, Any], _: str) -> Iterator[Ruling]:
    words = _words(job)
    arguments = job.get("ProgramArguments")
    if isinstance(arguments, list) and not all(isinstance(each, str) for each in arguments):
        yield failed("ProgramArguments holds something else than strings")
    if words and "Program" not in job and not words[0].startswith("/"):
        yield failed("the program is not an absolute path")
    if any(each.startswith(("~/", "$HOME", "${")) for each in words[1:]) and not inner_scripts(words):
        yield warned("an argument begins with ~ or $, which launchd doesn't expand")
    if {"--daemon", "--daemonize", "--background"} & set(words[1:]):
        yield warned("its program is told to go to the background: launchd takes that for its end")


def _runs(job: dict[str, Any], _: str) -> Iterator[Ruling]:
    if container_runs(_words(job)):
        yield failed("it runs a container by itself, past a wrapper")


def _shells(job: dict[str, Any], _: str) -> Iterator[Ruling]:
    if inner_scripts(_words(job)):
        yield warned("a shell is handed a script on its command line")


def _store(job: dict[str, Any], _: str) -> Iterator[Ruling]:
    if any(each.startswith("/nix/store/") for each in _words(job)[:1]):
        yield warned("its program is a store path")


def _logs(job: dict[str, Any], _: str) -> Iterator[Ruling]:
    for key in ("StandardOutPath", "StandardErrorPath"):
        value = job.get(key)
        if isinstance(value, str) and in_temporary(value):
            yield failed(f"{key} is in a directory that anyone may write to")


def _secrets(job: dict[str, Any], _: str) -> Iterator[Ruling]:
    env = job.get("EnvironmentVariables")
    for name, value in env.items() if isinstance(env, dict) else ():
        # Values of other types are not made text: a binary list's references can stand for a text without end.
        if not isinstance(value, str):
            yield warned(f"EnvironmentVariables: {str(name)[:60]} is a {type(value).__name__}")
        elif SECRET_NAME.search(str(name)) or SECRET_VALUE.search(value):
            yield failed(f"EnvironmentVariables holds what looks like a secret: {str(name)[:60]}")


def _stop(job: dict[str, Any], _: str) -> Iterator[Ruling]:
    if job.get("AbandonProcessGroup") is True:
        yield warned("AbandonProcessGroup leaves processes behind when it is stopped")
    if job.get("ExitTimeOut") == 0 and job.get("ExitTimeOut") is not False:
        yield warned("ExitTimeOut 0 waits for its end for ever")


def _session(job: dict[str, Any], path: str) -> Iterator[Ruling]:
    wanted = job.get("LimitLoadToSessionType")
    kinds = [each for each in (wanted if isinstance(wanted, list) else [wanted]) if isinstance(each, str)]
    daemon = path.startswith(DAEMONS)
    if not daemon and any(isinstance(job.get(key), str) for key in ("UserName", "GroupName")):
        yield warned("UserName and GroupName mean nothing in an agent")
    if wanted is None:
        opened = base((_words(job) or [""])[0]) in ("open", "osascript")
        if opened or any(".app/Contents/MacOS/" in each for each in _words(job)[:1]):
            yield warned("its program needs a login's windows, and LimitLoadToSessionType is not Aqua")
        return
    for each in kinds:
        if each not in SESSIONS:
            yield failed(f"LimitLoadToSessionType {each[:40]!r} is none")
    if daemon != ("System" in kinds):
        yield failed(f"{'a daemon' if daemon else 'an agent'} with LimitLoadToSessionType {' '.join(kinds)[:80]}")


_RULES = (
    (SYNTAX, _form), (SYNTAX, _values), (SYNTAX, _calendar), (SYNTAX, _program), (RESTART, _restarts),
    ("lint.raw-runtime-run", _runs), ("lint.shell-c", _shells), ("lint.opaque-nix", _store), ("lint.log-tmp", _logs),
    ("lint.secrets-in-env", _secrets), (STOP, _stop), (SESSION, _session),
)  # fmt: skip
