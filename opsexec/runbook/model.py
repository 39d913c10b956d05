"""The runbook as data: what a YAML file and a Python caller both build, and what the engine walks."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from opsexec.capability import Capability, CapabilitySet
from opsexec.errors import BadRunbook
from opsexec.patterns import Pattern
from opsexec.runbook.expression import parse_condition
from opsexec.runbook.fields import KEY_OF, REQUIRED, fields_of
from opsexec.runbook.reference import nearest
from opsexec.runbook.template import parse_template
from opsexec.secret_source import SecretSource
from opsexec.steps.base import Step
from opsexec.steps.registry import redact
from opsexec.steps.services import ServiceControl

if TYPE_CHECKING:
    from opsexec.inventory import Inventory
    from opsexec.runbook.options import Connect, RunOptions
    from opsexec.runbook.progress import Progress
    from opsexec.runbook.report import Report

RESERVED = ("host", "run", "check", "result")
"""Names a variable or a register may not take: the engine sets them."""

MAX_STEPS = 2000
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}\Z")
_SHARE = re.compile(r"([0-9]{1,3})%\Z")

Share = int | str
"""How many of a tier's hosts: a count, or text like "25%"."""


@dataclass(frozen=True)
class Retry:
    """Try again up to `times` more times, `delay` seconds after each failure."""

    times: int
    delay: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.times <= 1000 or not 0 <= self.delay <= 86400:
            raise BadRunbook("retry.times is not 1..1000, or retry.delay not 0..86400 seconds")


class Template:
    """A Step to be: its kind, and its fields, in which `${name}` is filled in for each host."""

    __slots__ = ("base_dir", "fields", "kind")

    def __init__(self, kind: type[Step], /, base_dir: str | None = None, **fields: Any) -> None:
        known = fields_of(kind)
        for name in fields:
            if name not in known:
                raise BadRunbook(f"{kind.__name__} has no field {name!r}", hint=nearest(name, known))
        for name in REQUIRED[kind]:
            if name not in fields:
                raise BadRunbook(f"{kind.__name__} needs {name}")
        self.kind = kind
        self.fields: Mapping[str, Any] = dict(fields)
        self.base_dir = base_dir

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and (self.kind, self.fields) == (other.kind, other.fields)

    def __hash__(self) -> int:
        return hash((self.kind, tuple(self.fields)))

    def __repr__(self) -> str:
        return f"Template({self.kind.__name__}, {', '.join(self.fields)})"


@dataclass(frozen=True)
class Assert:
    """A step of the engine's own.

    Fails unless the condition `that` holds, with `message` (may hold `${...}`).
    """

    that: str
    message: str | None = None

    def __post_init__(self) -> None:
        parse_condition(self.that)
        parse_template(self.message or "")


Action = Step | Template | Assert


@dataclass(frozen=True)
class RunbookStep:
    """One step of a runbook: the action, and when, how often and under which name it is done.

    `when`: a condition; `changed` alone = only if an earlier step changed something on this host.
    `register`: the variable that takes the result. `changed_when`: a condition over `result` that decides
    `changed`. `allow_failure`: a failure is reported, and the host goes on. `line`: where it stands in the
    file.
    """

    action: Action
    _: KW_ONLY
    name: str | None = None
    when: str | None = None
    retry: Retry | None = None
    register: str | None = None
    tags: Sequence[str] = ()
    changed_when: str | None = None
    allow_failure: bool = False
    line: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for text in (self.when, self.changed_when):
            if text is not None:
                parse_condition(text)
        if self.name is not None and ("${" in self.name or not self.name.strip() or not self.name.isprintable()):
            raise BadRunbook(
                f"the step name {self.name[:40]!r} is empty, not printable or holds ${{", hint="names are plain text"
            )
        if self.register is not None:
            check_variable(self.register)
        if isinstance(self.tags, str) or not all(_VARIABLE.match(tag) for tag in self.tags):
            raise BadRunbook("tags is not a list of names", hint="like tags: [deploy]")
        if isinstance(self.action, Assert) and (self.changed_when or self.retry):
            raise BadRunbook("an assert takes neither changed_when nor retry", hint="retry the step it looks at")
        object.__setattr__(self, "tags", tuple(self.tags))

    @property
    def title(self) -> str:
        """The step's name, or what it does in a few words; no body and no secret is part of it."""
        return self.name or describe(self.action)


@dataclass(frozen=True)
class Tier:
    """One gate: its hosts (a pattern within the runbook's), in `serial` batches, after `approve`.

    `serial`: sizes of the batches, the last one repeated; empty = all at once. `max_failures`: how many of
    its hosts may fail before the next batch and the later tiers are held back.
    """

    hosts: str
    _: KW_ONLY
    name: str | None = None
    serial: Sequence[Share] = ()
    approve: bool = False
    max_failures: Share = 0

    def __post_init__(self) -> None:
        Pattern.parse(self.hosts)
        object.__setattr__(self, "serial", tuple(self.serial))
        for share in self.serial:
            if share_of(share, 100) < 1:
                raise BadRunbook(f"serial {share!r} is no batch at all", hint='write a count from 1, or like "25%"')
        share_of(self.max_failures, 100)
        if not self.title.strip() or not self.title.isprintable():
            raise BadRunbook(
                f"the tier name {self.title[:40]!r} is empty or not printable", hint="people approve it by name"
            )

    @property
    def title(self) -> str:
        """The name, or the pattern without its `&`: what `${tier}` says."""
        return self.name or self.hosts.lstrip("&")


@dataclass(frozen=True)
class Runbook:
    """Steps over the hosts of a pattern, in tiers. Load it from YAML with `load`, or build it in Python."""

    _: KW_ONLY
    name: str
    hosts: str
    steps: Sequence[RunbookStep]
    always: Sequence[RunbookStep] = ()
    capabilities: Sequence[str] | None = None
    vars: Mapping[str, Any] = field(default_factory=dict)
    tiers: Sequence[Tier] = ()
    max_failures: Share = 0
    file: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for key in ("steps", "always", "tiers"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
        if not self.name.strip() or not self.name.isprintable():
            raise BadRunbook("the runbook has no printable name")
        if not self.steps or len(self.steps) + len(self.always) > MAX_STEPS:
            raise BadRunbook(f"a runbook has 1 to {MAX_STEPS} steps")
        for text in self.capabilities or ():
            Capability.parse(text)
        if self.capabilities is not None:
            object.__setattr__(self, "capabilities", tuple(self.capabilities))
        for name in self.vars:
            check_variable(name)
        taken = set(self.vars)
        for step in (*self.steps, *self.always):
            if step.register in taken:
                raise BadRunbook(f"register {step.register!r} is also a variable's name", hint="use another name")
        share_of(self.max_failures, 100)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Runbook:
        """Load a YAML file; raises BadRunbook with file:line."""
        from opsexec.runbook.loader import load_runbook

        return load_runbook(path)

    @classmethod
    def parse(cls, text: str, file: str = "runbook.yaml") -> Runbook:
        """Parse YAML text; raises BadRunbook with file:line."""
        from opsexec.runbook.loader import parse_runbook

        return parse_runbook(text, file)

    async def run(
        self,
        inventory: Inventory,
        *,
        connect: Connect | None = None,
        options: RunOptions | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Report:
        """Run it and return the report; `settings` are fields of RunOptions (`check=True`, `limit="web1"`).

        Raises UsageError and its kind before anything is contacted; a host's failure is in the report.
        """
        from opsexec.runbook.engine import run_runbook

        return await run_runbook(self, inventory, connect, options, progress, settings)

    def all_steps(self) -> list[tuple[str, RunbookStep]]:
        """Return every step with its key ("steps/0", "always/1"), in order: how the journal names them."""
        return [(f"steps/{i}", s) for i, s in enumerate(self.steps)] + [
            (f"always/{i}", s) for i, s in enumerate(self.always)
        ]

    def capability_set(self) -> CapabilitySet | None:
        """Return what the runbook limits itself to, None when it doesn't.

        It names no users: hosts do that.
        """
        return None if self.capabilities is None else CapabilitySet.of(*self.capabilities, run_as=["*"])

    @property
    def digest(self) -> str:
        """`sha256:<hex>` over what the runbook says, however it was written; no secret is part of it."""
        data = [
            self.name,
            self.hosts,
            None if self.capabilities is None else list(self.capabilities),
            {name: plain(value) for name, value in self.vars.items()},
            [[t.hosts, t.name, list(t.serial), t.approve, t.max_failures] for t in self.tiers],
            self.max_failures,
            [[key, _step_data(step)] for key, step in self.all_steps()],
        ]
        text = json.dumps(_canonical(data), sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(value: Any) -> Any:
    """Return the data with 2.0 as 2: Python and YAML write the same number differently."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _canonical(each) for key, each in value.items()}
    return [_canonical(each) for each in value] if isinstance(value, list) else value


def check_variable(name: str) -> None:
    """Raise BadRunbook unless the name may be a variable's."""
    if not _VARIABLE.match(name):
        raise BadRunbook(f"{name[:60]!r} can't be a variable's name", hint="letters, digits, _ and -")
    if name in RESERVED:
        raise BadRunbook(f"the variable {name!r} is set by the engine", hint="use another name")


def share_of(share: Share, total: int) -> int:
    """Return how many of `total` a count or a percentage is, rounded up.

    Raises BadRunbook for anything else.
    """
    if isinstance(share, int) and not isinstance(share, bool) and share >= 0:
        return share
    match = _SHARE.match(share) if isinstance(share, str) else None
    if match is None or int(match[1]) > 100:
        raise BadRunbook(f"{share!r} is neither a count nor a percentage", hint='write 2 or "25%"')
    return -(-total * int(match[1]) // 100)


def describe(action: Action) -> str:
    """Return what an action does in a few words."""
    if isinstance(action, Assert):
        return f"assert {action.that}"[:80]
    kind = action.kind if isinstance(action, Template) else type(action)
    key = KEY_OF.get(kind, str(kind.__struct_config__.tag))
    for name in ("name", "argv", "path", "dest", "action", "names"):
        value = action.fields.get(name) if isinstance(action, Template) else getattr(action, name, None)
        if value:
            shown = " ".join(value) if isinstance(value, (tuple, list)) else str(value)
            if kind is ServiceControl:
                shown += (
                    f" {action.fields['action'] if isinstance(action, Template) else getattr(action, 'action', '')}"
                )
            return f"{key} {shown}".replace("\n", " ")[:80]
    return key


def plain(value: Any) -> Any:
    """Return a variable's or field's value as JSON data: a secret's source instead of its value."""
    if isinstance(value, SecretSource):
        return {"from_env": value.from_env} if value.from_env is not None else {"prompt": value.prompt}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _step_data(step: RunbookStep) -> Any:
    action: Any = step.action
    if isinstance(action, Template):
        action = [str(action.kind.__struct_config__.tag), plain(action.fields)]
    elif isinstance(action, Assert):
        action = ["assert", action.that, action.message]
    else:
        action = [redact(action), {name: plain(value) for name, value in getattr(action, "env", {}).items()}]
    retry = None if step.retry is None else [step.retry.times, step.retry.delay]
    return [
        action,
        step.name,
        step.when,
        retry,
        step.register,
        list(step.tags),
        step.changed_when,
        step.allow_failure,
    ]
