"""The read-only questions a doctor may put to a host's programs: each an argv, and the verb that admits it, as data.

`{}` in an argv is the step's subject, `{number}` its number, `{address}` its address. A question changes nothing on
the host.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

SubjectKind = Literal["", "unit", "container", "image", "user", "path", "connection"]

UNIT_PROPERTIES = (
    "Id", "Names", "Description", "LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "UnitFilePreset",
    "MainPID", "ExecMainCode", "ExecMainStatus", "ExecMainExitTimestamp", "NRestarts", "Restart", "RestartUSec",
    "StartLimitBurst", "StartLimitIntervalUSec", "FragmentPath", "DropInPaths", "SourcePath", "NeedDaemonReload",
    "InvocationID", "ConditionResult", "ActiveEnterTimestamp", "ActiveEnterTimestampMonotonic",
    "InactiveExitTimestamp", "InactiveExitTimestampMonotonic", "Type", "KillMode", "TimeoutStopUSec", "User", "Group",
    "StandardOutput", "StandardError", "LoadError",
)  # fmt: skip
"""What `svc.*` and `lint.*` look at; org.freedesktop.systemd1(5) explains each."""


JOURNAL = "/var/log/journal"
"""What a unit said may be more than its state: it takes the right to read the journal's files too."""


class Question(NamedTuple):
    """One question. `subject`: what kind of name it takes; `resource`: what is asked for when it takes none.

    `timeout_s`: seconds until no answer is an answer; `max_bytes`: of stdout and stderr together. `file`: the subject
    is a file that the program reads, by its path without links or on stdin; it is read under the caller's grants first.
    `reads`: a path whose content the answer shows, which takes `fs.read` of it too.
    """

    sentence: str
    verb: str
    argv: tuple[str, ...]
    subject: SubjectKind = ""
    resource: str = ""
    timeout_s: float = 5.0
    max_bytes: int = 4 << 20
    user_manager: bool = False
    file: Literal["", "path", "stdin"] = ""
    reads: str = ""


_CTL = ("systemctl", "--no-pager", "--no-ask-password")

QUESTIONS: dict[str, Question] = {
    "systemd.running": Question(
        "Is the service manager up?", "service.read", (*_CTL, "is-system-running"), resource="systemd",
        user_manager=True,
    ),
    "systemd.version": Question(
        "Which version is it?", "service.read", (*_CTL, "show", "--property=Version,SystemState"), resource="systemd",
        user_manager=True,
    ),
    "systemd.unit": Question(
        "What does the manager know of a unit?", "service.read",
        (*_CTL, "show", "--property=" + ",".join(UNIT_PROPERTIES), "--", "{}"), "unit", user_manager=True,
    ),
    "systemd.journal": Question(
        "What did a unit say last?", "service.read",
        ("journalctl", "--no-pager", "--quiet", "--output=json", "--lines=50", "--unit={}"), "unit", reads=JOURNAL,
    ),
    "systemd.journal-user": Question(
        "What did a user's unit say last?", "service.read",
        ("journalctl", "--no-pager", "--quiet", "--output=json", "--lines=50", "--user-unit={}"), "unit", reads=JOURNAL,
    ),
    "systemd.journal-tail": Question(
        "What did a unit say, further back?", "service.read",
        ("journalctl", "--no-pager", "--quiet", "--output=short-iso-precise", "--lines={number}", "--unit={}"), "unit",
        timeout_s=20.0, max_bytes=16 << 20, reads=JOURNAL,
    ),
    "systemd.journal-tail-user": Question(
        "What did a user's unit say, further back?", "service.read",
        ("journalctl", "--no-pager", "--quiet", "--output=short-iso-precise", "--lines={number}", "--user-unit={}"),
        "unit", timeout_s=20.0, max_bytes=16 << 20, reads=JOURNAL,
    ),
    "systemd.verify": Question(
        "What does systemd find wrong in a unit file?", "fs.read",
        ("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "{}"), "path", timeout_s=10.0,
        file="path",
    ),
    "systemd.security": Question(
        "How exposed is what a unit file starts?", "fs.read",
        ("systemd-analyze", "security", "--offline=true", "--no-pager", "--json=short", "--threshold={number}", "{}"),
        "path", timeout_s=10.0, file="path",
    ),
    "systemd.linger": Question(
        "Does a user's manager outlive their logins?", "service.read",
        ("loginctl", "show-user", "--property=Linger", "{}"), "user",
    ),
    "shell.syntax": Question("Is a script well-formed?", "fs.read", ("sh", "-n"), "path", file="stdin"),
    "podman.version": Question(
        "Which podman is it, and does its service answer?", "container.read", ("podman", "version", "--format", "json"),
        resource="podman",
    ),
    "podman.machines": Question(
        "Which podman machines are there?", "container.read", ("podman", "machine", "list", "--format", "json"),
        resource="podman",
    ),
    "podman.connections": Question(
        "Which connections does podman know?", "container.read",
        ("podman", "system", "connection", "list", "--format", "json"), resource="podman",
    ),
    "podman.containers": Question(
        "Which containers are there?", "container.read", ("podman", "ps", "--all", "--format", "json"),
        resource="podman",
    ),
    "podman.container": Question(
        "What does podman know of a container?", "container.read",
        ("podman", "container", "inspect", "--format", "json", "{}"), "container",
    ),
    "podman.logs": Question(
        "What did a container say?", "container.read", ("podman", "logs", "--timestamps", "--tail={number}", "{}"),
        "container", timeout_s=10.0, max_bytes=16 << 20,
    ),
    "podman.image-exists": Question(
        "Is an image here?", "image.read", ("podman", "image", "exists", "{}"), "image"
    ),
    "podman.image": Question(
        "What does podman know of an image?", "image.read", ("podman", "image", "inspect", "--format", "json", "{}"),
        "image",
    ),
    "nix.deriver": Question(
        "What was a store path built from?", "fs.read", ("nix-store", "--query", "--deriver", "{}"), "path"
    ),
    "nix.profile": Question(
        "What is installed in the nix profile?", "service.read", ("nix", "profile", "list", "--json"), resource="nix"
    ),
    "tailnet.status": Question(
        "Which node of the tailnet is this?", "fs.read",
        ("tailscale", "--socket={}", "status", "--json", "--peers=false"), "path",
    ),
    "tailnet.whois": Question(
        "Whose is an address of the tailnet?", "fs.read",
        ("tailscale", "--socket={}", "whois", "--json", "{address}"), "path",
    ),
    "fs.sync": Question("Does a directory reach the disk when it has to?", "fs.read", ("sync", "{}"), "path"),
    "mac.enrollment": Question(
        "Is this machine managed by somebody?", "service.read", ("profiles", "status", "-type", "enrollment"),
        resource="profiles",
    ),
    "launchd.manager": Question(
        "Which launchd domain is this?", "service.read", ("launchctl", "managername"), resource="launchd"
    ),
    "launchd.disabled": Question(
        "Which jobs does launchd's override database disable?", "service.read",
        ("launchctl", "print-disabled", "{}"), "unit",
    ),
    "launchd.job": Question(
        "What does launchd know of a job?", "service.read", ("launchctl", "print", "{}"), "unit"
    ),
}  # fmt: skip
