"""What can be known before a host is contacted.

Undefined variables, misplaced secrets, steps no grant admits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from opsexec.capability import CapabilitySet
from opsexec.errors import BadRunbook, CapabilityDenied, OpsError, UsageError
from opsexec.inventory import InventoryHost
from opsexec.runbook.expression import FLAGS, Condition, parse_condition
from opsexec.runbook.model import RESERVED, Assert, Runbook, RunbookStep, Template
from opsexec.runbook.options import RunOptions
from opsexec.runbook.reference import Reference, nearest
from opsexec.runbook.rendering import render_step, template_references
from opsexec.runbook.sources import Sources
from opsexec.runbook.step_keys import in_keys
from opsexec.runbook.template import references
from opsexec.runbook.unused import unseen
from opsexec.runbook.variables import Scope
from opsexec.secret import Secret
from opsexec.secret_source import SecretSource
from opsexec.steps.base import Step


def read_secrets(runbook: Runbook, hosts: Iterable[InventoryHost], options: RunOptions) -> dict[SecretSource, Secret]:
    """Read each secret once, before anything is contacted; one that `--var` gives is not asked for."""
    found: dict[SecretSource, Secret] = {}
    for variables in (runbook.vars, *(host.vars for host in hosts)):
        for name, value in variables.items():
            if isinstance(value, SecretSource) and name not in options.vars and value not in found:
                found[value] = value.read(ask=options.ask)
    return found


def refuse_unknown_tags(runbook: Runbook, tags: Sequence[str]) -> None:
    """Raise UsageError for a tag that no step has: a typo would skip in silence what was asked for."""
    known = {tag for _, step in runbook.all_steps() for tag in step.tags}
    for tag in tags:
        if tag not in known:
            raise UsageError(f"no step has the tag {tag[:60]!r}", hint=nearest(tag, known))


def refuse_reserved(hosts: Iterable[InventoryHost]) -> None:
    """Raise UsageError for a host variable under a name that the engine sets itself."""
    for host in hosts:
        for name in host.vars:
            if name in RESERVED:
                raise UsageError(f"{host.name}: the variable {name!r} is set by the engine", hint="rename it")


def check_host(
    runbook: Runbook,
    scope: Scope,
    host: InventoryHost,
    capabilities: CapabilitySet,
    steps: Sequence[tuple[str, RunbookStep]],
    sources: Sources | None = None,
) -> list[str]:
    """Check every step for one host as far as it can be known; return what a person should be told.

    Raises BadRunbook (undefined variable, misplaced secret, fields that make no Step, a source that isn't there) and
    CapabilityDenied (the runbook's own `capabilities` can never admit the step).
    """
    later: set[str] = set()
    notices: list[str] = []
    for _, step in steps:
        where = f"{runbook.file}:{step.line}: " if runbook.file and step.line else f"step {step.title!r}: "
        try:
            notices += _check_step(runbook, step, scope, host, capabilities, later, sources)
        except BadRunbook as error:
            kind = type(error)
            raise kind(f"{where}{error.message} (on {host.name})", hint=error.hint) from error
        except OpsError as error:
            if isinstance(error, CapabilityDenied):
                raise
            message, hint = in_keys(error.message), in_keys(error.hint or "") or None
            raise BadRunbook(f"{where}{message} (on {host.name})", hint=hint) from error
        if step.register is not None:
            later.add(step.register)
    return notices


def _check_step(
    runbook: Runbook,
    step: RunbookStep,
    scope: Scope,
    host: InventoryHost,
    capabilities: CapabilitySet,
    later: set[str],
    sources: Sources | None,
) -> list[str]:
    certain = True
    if step.when is not None:
        condition = parse_condition(step.when)
        _check_references(condition.references(), scope, later)
        certain = _known_now(condition, later)
        if certain and not condition.holds(scope):
            return []
    if step.changed_when is not None:
        _check_references(parse_condition(step.changed_when).references(), scope, {*later, "result"})
    action = step.action
    if isinstance(action, Assert):
        _check_references(parse_condition(action.that).references(), scope, later)
        _check_references(references(action.message or ""), scope, later)
        return []
    notices = list(unseen(step, scope, later))
    if isinstance(action, Template):
        needed = [reference for reference, _, _ in template_references(action)]
        _check_references(needed, scope, later)
        if any(reference.name in later for reference in needed):
            return notices
    made = render_step(action, scope)
    if sources is not None and certain:
        sources.require(step, made)
    denied = _check_grants(runbook, step, made, host, capabilities)
    return notices if denied is None else [*notices, denied]


def _check_grants(
    runbook: Runbook, step: RunbookStep, made: Step, host: InventoryHost, capabilities: CapabilitySet
) -> str | None:
    own = runbook.capability_set()
    for need in made.requires():
        if capabilities.admits(need):
            continue
        if own is not None and not own.admits(need) and not step.allow_failure:
            at = f"line {step.line}" if step.line else f"step {step.title!r}"
            denied = CapabilityDenied(str(need), own.describe(need.verb), layer="runbook", reason=at)
            if not isinstance(need.resource, tuple) or need.resource[0].startswith("/"):
                # A program's bare name is no capability: the denial's own hint says what is.
                denied.hint = f'add "{need}" to the runbook\'s capabilities if this is wanted'
            raise denied
        return f"{host.name} will deny {step.title!r}: it needs {need}"
    try:
        capabilities.require_user(made.run_as)
    except CapabilityDenied as error:
        return f"{host.name} will deny {step.title!r}: it needs {error.needed}"
    return None


def _check_references(needed: Iterable[Reference], scope: Scope, later: set[str]) -> None:
    for reference in needed:
        if reference.name not in later:
            scope.lookup(reference)


def _known_now(condition: Condition, later: set[str]) -> bool:
    """True when the condition's answer can't change while the run goes on."""
    return not any(reference.name in later for reference in condition.references()) and not any(
        flag in condition.text for flag in FLAGS
    )


def literal_secrets(runbook: Runbook) -> Iterator[str]:
    """Yield the values of Secrets that stand in the steps themselves (a runbook made in Python)."""
    for _, step in runbook.all_steps():
        action = step.action
        if isinstance(action, Assert):
            continue
        names = action.fields if isinstance(action, Template) else action.__struct_fields__
        for name in names:
            yield from _secrets_in(action.fields[name] if isinstance(action, Template) else getattr(action, name))


def _secrets_in(value: object) -> Iterator[str]:
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _secrets_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _secrets_in(each)
    elif isinstance(value, msgspec.Struct):
        yield from _secrets_in(msgspec.structs.astuple(value))
