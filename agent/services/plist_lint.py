"""Lint of a launchd property list from its bytes; launchd.plist(5) names the keys. Pure, and untested on a mac."""

from __future__ import annotations

import plistlib
import re
import xml.parsers.expat
from typing import Any

from agent.services.command_line import base, container_runs, in_temporary, inner_scripts
from agent.services.finding import Evidence, Ruling, failed, warned
from agent.services.secret_shapes import SECRET_NAME, SECRET_VALUE

LABEL = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+\Z")
_TEXTS = """
    Label UserName GroupName LimitLoadToSessionType Program BundleProgram RootDirectory WorkingDirectory StandardInPath
    StandardOutPath StandardErrorPath ProcessType AssociatedBundleIdentifiers
"""
_FLAGS = """
    Disabled InitGroups EnableGlobbing EnableTransactions EnablePressuredExit OnDemand ServiceIPC RunAtLoad StartOnMount
    Debug WaitForDebugger AbandonProcessGroup LowPriorityIO LowPriorityBackgroundIO LaunchOnlyOnce SessionCreate
    LegacyTimers HopefullyExitsFirst HopefullyExitsLast MaterializeDatalessFiles
"""
TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(_TEXTS.split(), (str, list)),
    **dict.fromkeys(_FLAGS.split(), (bool,)),
    **dict.fromkeys(["TimeOut", "ExitTimeOut", "ThrottleInterval", "StartInterval", "Nice"], (int,)),
    "Umask": (int, str), "KeepAlive": (bool, dict), "ProgramArguments": (list,), "EnvironmentVariables": (dict,),
    "StartCalendarInterval": (dict, list), "WatchPaths": (list,), "QueueDirectories": (list,), "Sockets": (dict,),
    "SoftResourceLimits": (dict,), "HardResourceLimits": (dict,), "MachServices": (dict,), "LaunchEvents": (dict,),
    "inetdCompatibility": (dict,), "LimitLoadToHosts": (list,), "LimitLoadFromHosts": (list,),
    "LimitLoadToHardware": (dict,), "LimitLoadFromHardware": (dict,),
}  # fmt: skip
DEPRECATED = ("OnDemand", "ServiceIPC", "inetdCompatibility", "HopefullyExitsFirst", "HopefullyExitsLast", "Debug")
PATHS = ("Program", "WorkingDirectory", "RootDirectory", "StandardInPath", "StandardOutPath", "StandardErrorPath")
CALENDAR = {"Minute": 59, "Hour": 23, "Day": 31, "Weekday": 7, "Month": 12}


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


def lint_plist(data: bytes, path: str) -> list[Ruling]:
    """Return what is wrong with a property list; empty when nothing is."""
    at = Evidence(path=path)
    found: list[Ruling] = []
    try:
        if not data.startswith(b"bplist"):
            for key, line in duplicate_keys(data):
                found.append(failed(f"the key {key[:60]} stands twice", Evidence(path=path, line=line)))
        job = plistlib.loads(data)
    except (plistlib.InvalidFileException, ValueError, LookupError, OverflowError, RecursionError, TypeError) as error:
        return [failed(f"it is no property list: {str(error)[:200]}", at)]
    if not isinstance(job, dict):
        return [failed("it holds no dict", at)]
    return found + [_with(each, at) for each in (*_form(job, path), *_values(job), *_restarts(job), *_programs(job))]


def _with(ruling: Ruling, at: Evidence) -> Ruling:
    return Ruling(verdict=ruling.verdict, summary=ruling.summary, evidence=(at,), fix=ruling.fix)


def _form(job: dict[str, Any], path: str) -> list[Ruling]:
    import difflib

    found = []
    for key, value in job.items():
        kinds = TYPES.get(key)
        if kinds is None:
            near = difflib.get_close_matches(str(key), TYPES, n=1)
            found.append(failed(f"unknown key {str(key)[:60]!r}" + (f", meant is {near[0]}" if near else "")))
        elif not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            found.append(failed(f"{key} is a {type(value).__name__}"))
        elif key in DEPRECATED:
            found.append(warned(f"{key} is deprecated"))
    label = job.get("Label")
    if not isinstance(label, str) or not LABEL.match(label):
        found.append(failed("Label is no reverse-DNS name"))
    elif base(path) not in (f"{label}.plist", path) and base(path).endswith(".plist"):
        found.append(failed(f"Label {label} is not the file's name"))
    arguments = job.get("ProgramArguments")
    if "Program" not in job and "BundleProgram" not in job and not arguments:
        found.append(failed("neither Program nor ProgramArguments is there"))
    return found


def _values(job: dict[str, Any]) -> list[Ruling]:
    found = []
    for key in PATHS:
        value = job.get(key)
        if not isinstance(value, str):
            continue
        if "~" in value or "$" in value:
            found.append(failed(f"{key} has ~ or $, which launchd doesn't expand"))
        elif not value.startswith("/"):
            found.append(failed(f"{key} is not absolute"))
        if key.startswith("Standard") and in_temporary(value):
            found.append(failed(f"{key} is in a directory that anyone may write to"))
    umask = job.get("Umask")
    if isinstance(umask, int) and not isinstance(umask, bool) and umask in (22, 27, 77, 2, 7) and umask > 7:
        found.append(warned(f"Umask {umask} is decimal to launchd; as octal it is written as a string"))
    if "Disabled" in job:
        found.append(warned("Disabled is overruled by launchd's own database"))
    entries = job.get("StartCalendarInterval")
    for entry in entries if isinstance(entries, list) else [entries]:
        if isinstance(entry, dict):
            for key, value in entry.items():
                if not isinstance(value, int) or not 0 <= value <= CALENDAR.get(key, -1):
                    found.append(failed(f"StartCalendarInterval {str(key)[:40]} is out of range"))
    env = job.get("EnvironmentVariables")
    if isinstance(env, dict):
        for name, value in env.items():
            if SECRET_NAME.search(str(name)) or SECRET_VALUE.search(str(value)):
                found.append(failed(f"EnvironmentVariables holds what looks like a secret: {str(name)[:60]}"))
    return found


def _restarts(job: dict[str, Any]) -> list[Ruling]:
    found = []
    keep = job.get("KeepAlive")
    if keep is True or (isinstance(keep, dict) and keep.get("SuccessfulExit") is True):
        found.append(failed("KeepAlive starts it again without end"))
    throttle = job.get("ThrottleInterval")
    if isinstance(throttle, int) and not isinstance(throttle, bool) and throttle < 10:
        found.append(failed(f"ThrottleInterval {throttle} is under 10 s"))
    if keep and "StartInterval" in job:
        found.append(failed("KeepAlive and StartInterval contradict each other"))
    return found


def _programs(job: dict[str, Any]) -> list[Ruling]:
    arguments = job.get("ProgramArguments")
    words = [str(each) for each in arguments] if isinstance(arguments, list) else []
    program = job.get("Program") if isinstance(job.get("Program"), str) else (words[0] if words else "")
    found = []
    if words and not str(program).startswith("/"):
        found.append(failed("the program is not an absolute path"))
    if container_runs(words):
        found.append(failed("it runs a container by itself, past a wrapper"))
    if inner_scripts(words):
        found.append(warned("a shell is handed a script on its command line"))
    if str(program).startswith("/nix/store/"):
        found.append(warned("its program is a store path"))
    if job.get("AbandonProcessGroup") is True:
        found.append(warned("AbandonProcessGroup leaves processes behind when it is stopped"))
    return found
