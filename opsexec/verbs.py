"""The registry of verbs: each with the kind of its resource and one sentence (`opsexec actions` prints it)."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["path", "argv", "name"]


class Verb(NamedTuple):
    """One verb of the vocabulary: what kind of resource its pattern matches, and what it lets a holder do."""

    kind: Kind
    sentence: str


VERBS: dict[str, Verb] = {
    "exec": Verb("argv", "Run a program with exactly these arguments."),
    "shell": Verb("name", "Run a script under a named action; a grant may pin the script by its sha256."),
    "env": Verb("name", "Set an environment variable that changes which code a program loads (LD_PRELOAD, PATH)."),
    "tty": Verb("argv", "Open an interactive terminal running this program."),
    "fs.read": Verb("path", "Read a file's content or metadata."),
    "fs.write": Verb("path", "Create or change a file, directory, link, mode or owner."),
    "fs.remove": Verb("path", "Remove a file or a tree."),
    "sync.push": Verb("path", "Copy a tree to this path on the host."),
    "sync.pull": Verb("path", "Copy a tree from this path on the host."),
    "facts": Verb("name", "Read facts about the host (os, cpu, memory, disks, network, user)."),
    "observe": Verb("name", "Follow the host's load, memory, disks and service changes."),
    "service.read": Verb("name", "Read a service's state."),
    "service.control": Verb("name", "Start, stop, restart, reload, enable or disable a service."),
    "service.install": Verb("name", "Install or remove a service's unit."),
    "service.quarantine": Verb("name", "Contain or release a service."),
    "image.build": Verb("name", "Build a container image."),
    "image.read": Verb("name", "Read a container image, or run it: what a container or another image is made from."),
    "network.manage": Verb("name", "Create or remove a container network."),
    "network.join": Verb("name", "Attach a container or a build to a container network."),
    "container.run": Verb("name", "Create and start a container."),
    "container.exec": Verb("name", "Run a program in a running container."),
    "container.copy": Verb("name", "Copy files into or out of a container."),
    "container.read": Verb("name", "Read a container's state or logs."),
    "container.remove": Verb("name", "Stop and remove a container."),
    "sandbox.run": Verb("name", "Start a sandboxed process."),
    "sandbox.network": Verb("name", "Share the host's network with a sandboxed process."),
    "git.fetch": Verb("name", "Fetch a declared repository from its upstream."),
    "git.scan": Verb("name", "Scan what a push brings to a declared repository."),
    "git.forward": Verb("name", "Forward an accepted push to a declared repository's upstream."),
    "vm.run": Verb("name", "Create and start a virtual machine."),
    "vm.read": Verb("name", "Read a virtual machine's state."),
    "vm.remove": Verb("name", "Stop and remove a virtual machine."),
    "schedule.manage": Verb("name", "Create, change or remove a schedule on the host."),
    "script.run": Verb("name", "Run a stored script."),
    "audit.read": Verb("name", "Read the host's audit log."),
    "run.read": Verb("name", "List runs and read their output."),
    "run.signal": Verb("name", "Signal a run."),
}

ANY_PATTERN: dict[Kind, str] = {"path": "/**", "argv": "**", "name": "*"}
"""The pattern of each kind that admits every resource."""


def expand(verb: str) -> tuple[str, ...]:
    """Return the verbs that `verb` names: itself, or the family of `fs.*`. Empty when there is none."""
    if verb in VERBS:
        return (verb,)
    if verb.endswith(".*") and "*" not in verb[:-2]:
        return tuple(name for name in VERBS if name.startswith(verb[:-1]))
    return ()
