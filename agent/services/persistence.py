"""Where things that start by themselves stand on a host, and how a sweep of them compares with an earlier one."""

from __future__ import annotations

import json
from typing import NamedTuple

from opsexec.errors import UsageError
from opsexec.handlers.doctor import SurveyEntry


class Place(NamedTuple):
    """One directory or file. `depth`: levels below it; `names`: endings that count, all when empty."""

    path: str
    depth: int = 1
    names: tuple[str, ...] = ()


KINDS: dict[str, tuple[Place, ...]] = {
    "units": (
        Place("/etc/systemd/system", 3), Place("/etc/systemd/user", 3), Place("/usr/local/lib/systemd/system", 2),
        Place("/usr/local/lib/systemd/user", 2), Place("/run/systemd/system", 2), Place("/etc/systemd/user-generators"),
        Place("/etc/systemd/system-generators"), Place("/usr/local/lib/systemd/system-generators"),
        Place("/etc/containers/systemd", 2),
    ),
    "cron": (
        Place("/etc/crontab"), Place("/etc/anacrontab"), Place("/etc/cron.d"), Place("/etc/cron.hourly"),
        Place("/etc/cron.daily"), Place("/etc/cron.weekly"), Place("/etc/cron.monthly"), Place("/var/spool/cron", 2),
        Place("/var/spool/at"), Place("/var/spool/cron/atjobs"),
    ),
    "boot": (Place("/etc/rc.local"), Place("/etc/init.d"), Place("/etc/udev/rules.d"), Place("/etc/modules-load.d")),
    "login": (
        Place("/etc/profile"), Place("/etc/profile.d"), Place("/etc/bash.bashrc"), Place("/etc/xdg/autostart"),
        Place("/etc/pam.d"), Place("/etc/update-motd.d"), Place("/etc/environment"),
    ),
    "loader": (Place("/etc/ld.so.preload"), Place("/etc/ld.so.conf"), Place("/etc/ld.so.conf.d")),
    "keys": (Place("/etc/ssh/authorized_keys"), Place("/etc/ssh/sshd_config"), Place("/etc/ssh/sshd_config.d"),
             Place("/etc/sudoers"), Place("/etc/sudoers.d")),
}  # fmt: skip
"""Kind -> places of the whole system."""

HOME_KINDS: dict[str, tuple[Place, ...]] = {
    "units": (Place(".config/systemd/user", 3), Place(".local/share/systemd/user", 2)),
    "login": (Place(".profile"), Place(".bashrc"), Place(".bash_profile"), Place(".zshrc"), Place(".config/autostart")),
    "keys": (Place(".ssh", 1, ("authorized_keys", "authorized_keys2", "rc", "environment")),),
}
"""Kind -> places in each home directory."""

MAC_KINDS: dict[str, tuple[Place, ...]] = {
    "units": (Place("/Library/LaunchDaemons"), Place("/Library/LaunchAgents"), Place("/Library/StartupItems", 2)),
    "cron": (
        Place("/etc/crontab"), Place("/usr/lib/cron/tabs"), Place("/var/at/tabs"), Place("/var/at/jobs"),
        Place("/usr/lib/cron/jobs"),
    ),
    "boot": (
        Place("/etc/periodic", 2), Place("/usr/local/etc/periodic", 2), Place("/etc/periodic.conf"),
        Place("/etc/periodic.conf.local"), Place("/etc/rc.common"), Place("/etc/rc.local"), Place("/etc/launchd.conf"),
        Place("/Library/Extensions"), Place("/etc/emond.d", 2),
    ),
    "login": (
        Place("/var/db/com.apple.backgroundtaskmanagement"), Place("/etc/profile"), Place("/etc/zshrc"),
        Place("/etc/zprofile"), Place("/etc/bashrc"), Place("/etc/pam.d"),
        Place("/Library/Preferences/com.apple.loginwindow.plist"),
    ),
    "keys": (Place("/etc/ssh/sshd_config"), Place("/etc/ssh/sshd_config.d"), Place("/etc/sudoers"),
             Place("/etc/sudoers.d")),
    "authorization": (Place("/Library/Security/SecurityAgentPlugins", 3), Place("/var/db/auth.db"),
                      Place("/Library/DirectoryServices/PlugIns", 3)),
    "profiles": (Place("/var/db/ConfigurationProfiles", 3), Place("/Library/Managed Preferences", 2)),
}  # fmt: skip
"""The same of macOS, where /etc and /var are links into /private. Gathered from its manual pages, never tried there."""

MAC_HOME_KINDS: dict[str, tuple[Place, ...]] = {
    "units": (Place("Library/LaunchAgents"),),
    "login": (
        Place("Library/Application Support/com.apple.backgroundtaskmanagementagent"), Place(".profile"),
        Place(".bash_profile"), Place(".bashrc"), Place(".zshrc"), Place(".zprofile"), Place(".zshenv"),
        Place("Library/Preferences/com.apple.loginwindow.plist"),
    ),
    "keys": (Place(".ssh", 1, ("authorized_keys", "authorized_keys2", "rc", "environment")),),
}  # fmt: skip
"""Login items are the files of com.apple.backgroundtaskmanagement(agent): told apart by digest, not taken apart."""

MAC_HOMES = "/Users"
MAC_ROOT = "/var/root"
MAC_LINKS = ("/etc", "/var", "/tmp")
"""Links of every macOS, each to the same name under /private."""

MAX_HOMES = 200
NO_HOMES = ("/nonexistent", "/proc", "/dev", "/usr", "/bin", "/sbin")


def homes(passwd: str) -> list[str]:
    """Return the home directories of /etc/passwd, without doubles; at most MAX_HOMES."""
    found: list[str] = []
    for line in passwd.splitlines():
        fields = line.split(":")
        home = fields[5] if len(fields) >= 7 else ""
        if home.startswith("/") and not home.startswith(NO_HOMES) and home not in ("/", *found):
            found.append(home)
    return found[:MAX_HOMES]


def places_of(kind: str, system: str, home_directories: list[str]) -> list[Place]:
    """Return the places of a kind on a system, those in home directories too."""
    everywhere, at_home = (MAC_KINDS, MAC_HOME_KINDS) if system == "Darwin" else (KINDS, HOME_KINDS)
    found = list(everywhere.get(kind, ()))
    for home in home_directories:
        found += [Place(f"{home}/{each.path}", each.depth, each.names) for each in at_home.get(kind, ())]
    if system == "Darwin":
        return [each._replace(path=real_on_mac(each.path)) for each in found]
    return found


def real_on_mac(path: str) -> str:
    """Return a path of macOS without the links that every macOS has."""
    return "/private" + path if path.startswith(tuple(each + "/" for each in MAC_LINKS)) else path


def mark(entry: SurveyEntry) -> str:
    """Return one line that changes when the entry does: its kind, mode, owner, and content or target."""
    content = entry.target if entry.kind == "link" else entry.sha256
    return f"{entry.kind} {entry.mode} {entry.uid}:{entry.gid} {content or f'{entry.size} bytes'}"


def danger(entry: SurveyEntry) -> str | None:
    """Return what is wrong with an entry whatever was there before; None when nothing is."""
    mode = int(entry.mode, 8)
    if entry.kind in ("file", "directory") and mode & 0o002 and not mode & 0o1000:
        return f"anyone may write to it (mode {entry.mode})"
    return None


def compare(before: dict[str, str], now: dict[str, str]) -> dict[str, list[str]]:
    """Return the paths that are new, changed and gone."""
    return {
        "new": sorted(path for path in now if path not in before),
        "changed": sorted(path for path in now if path in before and before[path] != now[path]),
        "gone": sorted(path for path in before if path not in now),
    }


SCHEMA = "ops-agent.persistence/1"


def write_baseline(entries: dict[str, str]) -> str:
    """Return a baseline as JSON text."""
    return json.dumps({"schema": SCHEMA, "entries": entries}, indent=1, sort_keys=True) + "\n"


def read_baseline(data: bytes, file: str) -> dict[str, str]:
    """Return a baseline's entries; raises UsageError for what is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is no baseline", hint="make one with --save-baseline FILE") from error
    entries = found.get("entries") if isinstance(found, dict) and found.get("schema") == SCHEMA else None
    if not isinstance(entries, dict) or not all(isinstance(each, str) for each in entries.values()):
        raise UsageError(f"{file} is no baseline", hint="make one with --save-baseline FILE")
    return entries
