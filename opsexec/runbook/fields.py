"""What a runbook may say about each kind of step.

Its keys, their types, and the key that stands for the step alone.
"""

from __future__ import annotations

from opsexec.errors import BadRunbook
from opsexec.runbook import container_fields
from opsexec.runbook.field_types import FieldType, Key
from opsexec.runbook.reference import nearest
from opsexec.steps import (
    Exec,
    Facts,
    Link,
    MakeDir,
    Pull,
    Push,
    ReadFile,
    RemoveFile,
    ServiceControl,
    ServiceStatus,
    SetMode,
    Shell,
    Stat,
    Step,
    WriteFile,
)

ANY: dict[str, FieldType] = {"run_as": "text", "timeout_s": "number"}
PROCESS: dict[str, FieldType] = {"env": "environment", "cwd": "text", "stdin": "secret", "creates": "text"}
_ATTRIBUTES: dict[str, FieldType] = {"mode": "text", "owner": "text", "group": "text"}
_SYNC: dict[str, FieldType] = {"delete": "bool", "excludes": "words", "bandwidth_bytes_s": "int"}

OWN_FIELDS: dict[type[Step], dict[str, FieldType]] = {
    Exec: {"argv": "words"},
    Shell: {"action": "text", "script": "script", "sha256": "text", "interpreter": "text"},
    WriteFile: {"path": "text", "content": "secret", **_ATTRIBUTES, "parents": "bool"},
    ReadFile: {"path": "text", "offset": "int", "max_bytes": "int"},
    RemoveFile: {"path": "text", "recursive": "bool"},
    Stat: {"path": "text"},
    MakeDir: {"path": "text", **_ATTRIBUTES, "parents": "bool"},
    Link: {"path": "text", "target": "text"},
    SetMode: {"path": "text", **_ATTRIBUTES},
    Push: {"src": "local", "dest": "text", **_SYNC},
    Pull: {"src": "text", "dest": "local", **_SYNC},
    ServiceControl: {"name": "text", "action": "text", "user": "bool"},
    ServiceStatus: {"name": "text", "user": "bool"},
    Facts: {"names": "words"},
    **container_fields.OWN_FIELDS,
}
"""The fields a step's own key holds, by Step; what stands beside that key is in PROCESS and ANY."""

REQUIRED: dict[type[Step], tuple[str, ...]] = {
    Exec: ("argv",),
    Shell: ("action", "script"),
    WriteFile: ("path", "content"),
    ReadFile: ("path",),
    RemoveFile: ("path",),
    Stat: ("path",),
    MakeDir: ("path",),
    Link: ("path", "target"),
    SetMode: ("path",),
    Push: ("src", "dest"),
    Pull: ("src", "dest"),
    ServiceControl: ("name", "action"),
    ServiceStatus: ("name",),
    Facts: (),
    **container_fields.REQUIRED,
}


KEYS: dict[str, Key] = {
    "exec": Key(Exec, "argv", "Run one program with exactly these words; no shell."),
    "shell": Key(Shell, None, "Run a script as a named action; variables arrive as its environment."),
    "write": Key(WriteFile, None, "Make a file hold exactly this content, atomically."),
    "read": Key(ReadFile, "path", "Read a file; its text is the step's stdout."),
    "remove": Key(RemoveFile, "path", "Remove a file, link or directory."),
    "stat": Key(Stat, "path", "Read a path's metadata; a missing path is an answer."),
    "mkdir": Key(MakeDir, "path", "Make a directory exist."),
    "link": Key(Link, None, "Make a symbolic link."),
    "mode": Key(SetMode, None, "Set the mode, owner or group of a path."),
    "push": Key(Push, None, "Copy a tree of the caller to the host."),
    "pull": Key(Pull, None, "Copy a tree of the host to the caller."),
    "service": Key(ServiceControl, None, "Bring a service into a state, or read it with action: status."),
    "facts": Key(Facts, "names", "Read facts about the host."),
    **container_fields.KEYS,
}

KEY_OF: dict[type[Step], str] = {key.step: name for name, key in KEYS.items()} | {ServiceStatus: "service"}
"""How a runbook spells each kind of Step."""

SERVICE_ACTIONS = ("start", "stop", "restart", "reload", "enable", "disable", "status")


def fields_of(kind: type[Step]) -> dict[str, FieldType]:
    """Return every field a runbook may set on this kind of Step.

    Raises BadRunbook for a kind it has no key for.
    """
    own = OWN_FIELDS.get(kind)
    if own is None:
        known = (each.__name__ for each in OWN_FIELDS)
        raise BadRunbook(f"a runbook has no {kind.__name__} step", hint=nearest(kind.__name__, known))
    return {**own, **(PROCESS if kind in (Exec, Shell) else {}), **ANY}
