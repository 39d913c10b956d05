"""A service's systemd unit, from its declaration: bounded where systemd reads bounds, skipped where it can't run."""

from __future__ import annotations

from agent.services.artifact import Artifact, Places, plain_path, plain_words
from agent.services.declaration import Declaration
from agent.services.receipt import MARKER
from agent.services.restart_limits import Limits

HOUR_S = 3600
RESTART_S = 10.0

NATIVE = """NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_KILL CAP_NET_BIND_SERVICE CAP_SETGID CAP_SETUID
UMask=0027
"""
"""For a program of the system's: what a daemon that serves files or a port still works under."""

CONTAINER = """LockPersonality=yes
RestrictRealtime=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_BOOT CAP_SYS_TIME CAP_MAC_ADMIN CAP_MAC_OVERRIDE
CapabilityBoundingSet=~CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_LEASE CAP_SYS_PACCT CAP_SYS_TTY_CONFIG CAP_SYSLOG
UMask=0027
"""
"""For a container runtime: nothing that takes a mount namespace, or the host no longer sees its containers' mounts."""

USER = """NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
UMask=0027
"""
"""For a program of a user's manager, which can't give a service a namespace of its own."""

USER_CONTAINER = "KeyringMode=private\nUMask=0027\n"
"""For a rootless runtime: it needs user namespaces, setuid helpers and mounts."""

BUDGETS = {"native": 3.5, "podman": 8.0, "user": 8.0, "user-podman": 9.8}
"""The highest `systemd-analyze security` level of a generated unit (systemd 252); a test holds them."""


HARDENING = {(False, False): NATIVE, (False, True): CONTAINER, (True, False): USER, (True, True): USER_CONTAINER}
"""By (it is a user's, it runs in a container)."""


def limits(declared: Declaration) -> Limits:
    """Return the restart limits: so many starts an hour, far enough from each other that the limit is reached."""
    life = declared.lifecycle
    burst = max(1, life.max_restarts_per_hour)
    restart = "always" if life.keep_alive else "on-failure"
    if life.restart == "manual" or life.max_restarts_per_hour == 0:
        restart = "no"
    return Limits(restart=restart, restart_s=min(RESTART_S, HOUR_S / (2 * burst)), interval_s=HOUR_S, burst=burst)


def make_unit(declared: Declaration, places: Places) -> Artifact:
    """Return the unit; raises UsageError for a log's path that can't stand in one."""
    life, user, container = declared.lifecycle, declared.scope == "user", declared.runtime == "podman"
    bound = limits(declared)
    wrapper = plain_path(places.wrapper(declared.name), "the wrapper's place")
    owner = plain_words("/".join(each for each in (declared.owner.project, declared.owner.component) if each))
    lines = [
        MARKER + declared.name,
        "# Made from the service's declaration by ops-agent: change that, and install again.",
        "[Unit]",
        f"Description={declared.name}" + (f" ({owner})" if owner else ""),
        *([] if user else ["Wants=network-online.target", "After=network-online.target"]),
        "# Both belong here: under [Service] systemd ignores them, and restarts are then unbounded.",
        f"StartLimitIntervalSec={HOUR_S}",
        f"StartLimitBurst={bound.burst}",
        "",
        "[Service]",
        "Type=exec",
        "# What it needs is down: skipped, not failed and started again.",
        f"ExecCondition={wrapper} ready",
        f"ExecStart={wrapper} run",
    ]
    if container:
        lines += [f"ExecStop=-{wrapper} stop", f"ExecStopPost=-{wrapper} clean"]
    lines += [
        f"Restart={bound.restart}",
        f"RestartSec={bound.restart_s:g}",
        f"TimeoutStartSec={life.startup_timeout_seconds + 25}",
        f"TimeoutStopSec={life.shutdown_timeout_seconds}",
        "KillMode=mixed",
        f"SyslogIdentifier={declared.name}",
    ]
    for key, path in (("StandardOutput", declared.logs.stdout), ("StandardError", declared.logs.stderr)):
        lines.append(f"{key}=append:{plain_path(path, 'the log')}" if path else f"{key}=journal")
    text = "\n".join(lines) + "\n" + HARDENING[user, container]
    text += f"\n[Install]\nWantedBy={'default.target' if user else 'multi-user.target'}\n"
    return Artifact("unit", f"{places.units}/{declared.name}.service", text.encode(), "0644")
