"""Running git on a declared repository: no configuration but our own, no prompt, no replace refs, no grafts.

Standard library alone, Python 3.8 on: these modules are sent to where they run.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MIRROR = "mirror.git"
LINE = "line"
"""Where a login at the upstream is found, inside the declared directory, as long as a step holds it."""

NULL = "/dev/null"
SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.quotePath=false",
    "core.bigFileThreshold=1m",  # larger files are streamed, and nobody looks for deltas between them
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.version=2",
    "push.recurseSubmodules=no",
    "push.gpgSign=false",
    "push.followTags=false",
    "fetch.recurseSubmodules=no",
    "transfer.credentialsInUrl=die",
)
SAID_LINES = 20
SAID_BYTES = 4000


class Refused(Exception):
    """The work can't be done, and why, in words for the person who pushed."""


class Declared:
    """A declared repository: its directory, and what `declared.json` says."""

    def __init__(self, place: str) -> None:
        import json

        if os.path.realpath(place) != place:
            raise Refused("the repository's directory is reached through a link")
        self.place = place
        self.git_dir = os.path.join(place, MIRROR)
        with open(os.path.join(place, "declared.json"), "rb") as file:
            found = json.load(file)
        self.url = str(found["url"])
        self.policy: dict[str, Any] = found.get("policy", {})
        self.connect_timeout_s = int(found.get("connect_timeout_s", 10))
        if not self.url.startswith("ssh://"):
            raise Refused("the declared upstream is not an ssh:// address")

    def at(self, name: str) -> str:
        """Return a path inside the directory."""
        return os.path.join(self.place, name)

    def held(self, quarantine: str) -> str:
        """Return the quarantine's directory; raises Refused unless it lies where the mirror's own lie."""
        own = os.path.dirname(quarantine) == os.path.join(self.git_dir, "objects")
        if not own or os.path.realpath(quarantine) != quarantine or not os.path.isdir(quarantine):
            raise Refused("the push's quarantine isn't there")
        return quarantine

    def line(self) -> str | None:
        """Return where a login is held open, None where there is none: git logs in by itself then."""
        import stat

        path = self.at(LINE)
        try:
            return path if stat.S_ISSOCK(os.lstat(path).st_mode) else None
        except OSError:  # no line is open
            return None

    def ssh_command(self, control: str | None = None) -> str:
        """Return how git reaches the upstream; `control`: over a connection that is open there already."""
        import shlex

        return " ".join(shlex.quote(word) for word in self.ssh_words(control))

    def ssh_words(self, control: str | None = None) -> list[str]:
        """Return that as words; raises Refused without a key, or without a host key to hold the upstream to."""
        identity, known = self.at("identity"), self.at("known_hosts")
        for path, what in ((identity, "no key for the upstream"), (known, "no known host key for the upstream")):
            try:
                empty = os.stat(path).st_size == 0
            except OSError:  # what can not be read is as good as empty, and refused
                empty = True
            if empty:
                raise Refused(what + "; the operator declares it in the bottle's manifest")
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(self.connect_timeout_s),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": known,
            "GlobalKnownHostsFile": NULL,
            "UpdateHostKeys": "no",
            "CheckHostIP": "no",
            "ProxyCommand": "none",
            "PermitLocalCommand": "no",
            "ClearAllForwardings": "yes",
            "ForwardAgent": "no",
            "ControlMaster": "no",
            "ControlPath": control or "none",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "LogLevel": "ERROR",
        }
        words = ["ssh", "-F", "none", "-T", "-i", identity]
        for name, value in options.items():
            words += ["-o", name + "=" + value]
        return words


def environment(
    declared: Declared, quarantine: str | None = None, ssh: bool = False, control: str | None = None
) -> dict[str, str]:
    """Return the whole environment of a git. `quarantine`: look for objects there first, then in the mirror."""
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_DIR": declared.git_dir,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": NULL,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_GRAFT_FILE": "/nonexistent",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ALLOW_PROTOCOL": "ssh",
        "GIT_ADVICE": "0",
    }
    marker = os.environ.get("OPSEXEC_RUN")
    if marker is not None:
        env["OPSEXEC_RUN"] = marker
    if quarantine is not None:
        env["GIT_OBJECT_DIRECTORY"] = quarantine
        env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = os.path.join(declared.git_dir, "objects")
    if ssh:
        env["GIT_SSH_COMMAND"] = declared.ssh_command(control)
        env["GIT_SSH_VARIANT"] = "ssh"
    return env


def argv(*words: str) -> list[str]:
    """Return the words of a git with our settings, which outrank the repository's."""
    found = ["git"]
    for setting in SETTINGS:
        found += ["-c", setting]
    return [*found, *words]


def git(words: Sequence[str], env: dict[str, str], stdin: bytes = b"") -> tuple[int, bytes, str]:
    """Run git to its end; returns (status, stdout, what it said, made printable)."""
    import subprocess

    done = subprocess.run(argv(*words), env=env, input=stdin, capture_output=True, cwd="/", check=False)
    return done.returncode, done.stdout, said(done.stderr)


def said(data: bytes) -> str:
    """Return the last lines of what a program said: no control characters, so that no terminal obeys them."""
    lines = []
    for line in data.decode("utf-8", "replace").replace("\r", "\n").split("\n"):
        shown = "".join(each if each.isprintable() else "?" for each in line).rstrip()
        if shown:
            lines.append(shown[:500])
    return "\n".join(lines[-SAID_LINES:])[-SAID_BYTES:]


def told() -> dict[str, Any] | None:
    """Return what the line on our input says of the push, waiting for it; None where the input ends before.

    The line is the gate's own, and held to the same rules as a step's fields.
    """
    import json
    import re
    import sys

    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return None
    found = json.loads(line)
    updates = [str(update) for update in found["updates"]]
    for update in updates:
        if not re.match(r"[0-9a-f]{40,64} [0-9a-f]{40,64} refs/[^ ]+\Z", update) or not update.isprintable():
            raise Refused("what is said of the push is malformed")
    if not updates:
        raise Refused("what is said of the push is malformed")
    return {"quarantine": str(found["quarantine"]), "updates": updates}
