"""What a person sees before a launch: one renderer for every backend. Nothing is cut short, nothing can hide."""

from __future__ import annotations

import json
import re

from bottle.limits import held_by_engine, named
from bottle.manifest.kinds import Repository
from bottle.plan import BottlePlan


def preflight(plan: BottlePlan, limits: str | None = None) -> list[str]:
    """Return the summary's lines. `limits`: the bounds with what holds each, where that is known."""
    return [f"{label:<13} {text}" for label, text in summary(plan, limits)]


def summary(plan: BottlePlan, limits: str | None = None) -> list[tuple[str, str]]:
    """Return the summary as labels and texts. Characters that steer a terminal or reorder text stand as escapes."""
    user = plan.git_user
    hidden = plan.provider.hidden
    names = sorted({*plan.env, *plan.provider.env} - hidden)
    rows = [
        ("agent", plan.agent),
        ("provider", plan.provider.name),
        ("command", " ".join(plan.command)),
        ("bottle", plan.bottle),
        ("backend", plan.backend),
        *([("image", f"{plan.image.where} sha256:{plan.image.digest}")] if plan.image else []),
        ("env", ", ".join(names) or "none"),
        ("skills", ", ".join(plan.skills) or "none"),
        ("workspace", _workspace(plan)),
    ]
    if user is not None:
        who = " ".join(part for part in (user.name, user.email and f"<{user.email}>") if part)
        rows.append(("git identity", who + (" (claimed by the agent's file)" if plan.git_user_claimed else "")))
    for name, repository in plan.repositories.items():
        upstream = repository.upstream
        where = f"{upstream.host}:{upstream.port}{_policy(repository)} [as {upstream.user}: /{upstream.path}]"
        rows.append(("git", f"{name} -> {where}"))
        if name in plan.host_keys:
            rows.append(("git host key", f"{name} {plan.host_keys[name].told}"))
    if not plan.repositories:
        rows.append(("git", "none"))
    rows += [("egress", route.line) for route in plan.egress.routes] or [("egress", "none")]
    held = held_by_engine if plan.backend == "docker" else named
    rows.append(("limits", limits or held(plan.limits)))
    rows.append(("supervise", "yes" if plan.supervise else "no"))
    rows += [("from", source.where + ("" if source.trusted else " (not yours)")) for source in plan.sources]
    rows.append(("plan", f"sha256:{plan.digest}"))
    rows += [("warning", text) for text in plan.warnings]
    return [(label, shown(text)) for label, text in rows]


def _policy(repository: Repository) -> str:
    """Name what differs from the gate's default: a looser gate is not to be overlooked."""
    said = repository.policy.rendered()
    return f" [policy: {', '.join(f'{key}={json.dumps(value)}' for key, value in said.items())}]" if said else ""


def _workspace(plan: BottlePlan) -> str:
    workspace = plan.workspace
    if workspace.source is not None:
        return f"a copy of {workspace.source} at {workspace.path}"
    return f"as it was left, at {workspace.path}" if workspace.workdir == workspace.path else "none"


BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""What draws nothing though it counts as printable: Unicode's Default_Ignorable_Code_Point beside the format characters
(DerivedCoreProperties.txt), by which texts are hidden in others, and the empty pattern of Braille."""


def shown(text: str) -> str:
    """Return text as one line whose characters all show themselves: what steers, reorders or is blank is escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character.isprintable() and not BLANK.match(character):  # no control or format character is printable
        return character
    return character.encode("unicode_escape").decode("ascii")
