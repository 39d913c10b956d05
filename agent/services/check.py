"""The registry of checks: each an id, what it reads, what it waits for, and the function that rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Literal, NamedTuple

from agent.services.finding import Ruling, Severity

if TYPE_CHECKING:
    from agent.services.look import Look

Scope = Literal["host", "podman", "service"]
"""What a check is about: the machine, its container runtime, or one service."""

FAMILIES = (
    "host", "backend", "svc", "lint", "nix", "podman", "image", "container", "runtime", "auth", "logs", "deps",
    "persist", "agent",
)  # fmt: skip
MODULES = {
    "host": ("host",), "backend": ("backend",), "svc": ("svc_state", "svc_files", "svc_launchd"),
    "lint": ("lint_unit", "lint_exec", "lint_files", "lint_quadlet", "lint_plist"), "nix": ("nix",),
    "podman": ("podman",), "image": ("image",), "container": ("container",), "runtime": ("canary",),
    "auth": ("auth",), "logs": ("logs",), "deps": ("deps",), "persist": ("persist",), "agent": ("agent_self",),
}  # fmt: skip
"""Family -> its modules in `agent.services.checks`; a run loads the families it needs."""

Rule = Callable[["Look"], Awaitable[Ruling | list[Ruling]]]


class Check(NamedTuple):
    """One check. `reads`: what it looks at, in words; `fails_when`: what it objects to.

    `after`: ids of checks whose failure says all that this one could; it is skipped because of them then.
    `platforms`: where it means anything. `blocks`: a preflight with this finding isn't passed.
    `opt_in`: runs only when it is asked for by `--only`. `mac_rule`: rules instead where launchd is the manager,
    `mac_reads`: what it looks at there.
    """

    id: str
    scope: Scope
    rule: Rule
    reads: str
    fails_when: str
    severity: Severity = "medium"
    after: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ("Linux", "Darwin")
    blocks: bool = False
    opt_in: bool = False
    mac_rule: Rule | None = None
    mac_reads: str = ""

    @property
    def family(self) -> str:
        """The part of the id before the dot."""
        return self.id.partition(".")[0]


_CHECKS: dict[str, Check] = {}


def check(
    id: str,
    scope: Scope,
    *,
    reads: str,
    fails_when: str,
    severity: Severity = "medium",
    after: Iterable[str] = (),
    platforms: tuple[str, ...] = ("Linux", "Darwin"),
    blocks: bool = False,
    opt_in: bool = False,
) -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of a check."""

    def register(rule: Rule) -> Rule:
        assert id not in _CHECKS, id
        _CHECKS[id] = Check(id, scope, rule, reads, fails_when, severity, tuple(after), platforms, blocks, opt_in)
        return rule

    return register


def on_mac(id: str, *, reads: str) -> Callable[[Rule], Rule]:
    """Register the decorated function as what rules on a check of systemd's where launchd is the manager."""

    def register(rule: Rule) -> Rule:
        found = _CHECKS[id]
        assert found.mac_rule is None, id
        _CHECKS[id] = found._replace(mac_rule=rule, mac_reads=reads, platforms=("Linux", "Darwin"))
        return rule

    return register


def checks(families: Iterable[str] = FAMILIES) -> list[Check]:
    """Return the checks of these families in the order of their families."""
    found = []
    for family in families:
        names = [f"agent.services.checks.{module}" for module in MODULES[family]]
        for name in names:
            import_module(name)
        for name in names:
            # By module, not by when it was first imported: the order is part of reports and of the catalogue.
            found += [each for each in _CHECKS.values() if each.family == family and each.rule.__module__ == name]
    return found
