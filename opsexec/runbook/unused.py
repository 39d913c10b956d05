"""Variables that would reach nothing in silence: given by `--var` and named nowhere, or no text for a script."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from opsexec.inventory import InventoryHost
from opsexec.runbook.expression import parse_condition
from opsexec.runbook.model import RESERVED, Assert, Runbook, RunbookStep, Template
from opsexec.runbook.reference import Reference, nearest
from opsexec.runbook.variables import Scope
from opsexec.steps import Shell

_IN_SCRIPT = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")
_SET_IN_SCRIPT = re.compile(r"\b(?:for\s+|read\s+(?:-\w+\s+)*)([A-Za-z_]\w*)|\b([A-Za-z_]\w*)=")
_NOT_TEXT = (list, tuple, Mapping, type(None))
_REFERENCE = re.compile(r"(?<!\$)\$\{(\w+)")


def unused(runbook: Runbook, hosts: Iterable[InventoryHost], given: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each given name that is no variable of the runbook or a host, and no word of any step.

    A word in a script is enough: shell steps have variables in their environment.
    """
    names = list(given)
    if not names:
        return
    known = set(runbook.vars) | {name for host in hosts for name in host.vars}
    texts = list(_texts(list(runbook.vars.values())))
    shell = False
    for _, step in runbook.all_steps():
        texts += _step_texts(step)
        shell = (
            shell or isinstance(step.action, Shell) or (isinstance(step.action, Template) and step.action.kind is Shell)
        )
    known |= {name for text in texts for name in _REFERENCE.findall(text)}
    for condition in _conditions(runbook):
        texts.append(condition)
        known |= {reference.name for reference in parse_condition(condition).references()}
    known -= {step.register for _, step in runbook.all_steps() if step.register} | {*RESERVED}
    for name in names:
        if name not in known and not any(re.search(rf"\b{re.escape(name)}\b", text) for text in texts):
            reach = ", though shell steps have it in their environment" if shell else ""
            yield f"--var {name[:60]}: no part of the runbook uses it{reach} ({nearest(name, known)})"


def unseen(step: RunbookStep, scope: Scope, registered: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each list, map, null or result that a script names as `$name`: it has no such variable."""
    script, own = _script(step)
    taken = {*own, *(name for pair in _SET_IN_SCRIPT.findall(script) for name in pair)}
    named = dict.fromkeys(name for name in _IN_SCRIPT.findall(script) if name not in taken)
    if not named:
        return
    defined = set(scope.names())
    for name in named:
        if name in registered or (name in defined and isinstance(scope.lookup(Reference(name, ())), _NOT_TEXT)):
            yield f"step {step.title!r}: no ${name} reaches its script, only text, numbers and bools do (use env)"


def _script(step: RunbookStep) -> tuple[str, Iterable[str]]:
    action = step.action
    if isinstance(action, Shell):
        return action.script, action.env
    if isinstance(action, Template) and action.kind is Shell:
        return str(action.fields.get("script", "")), action.fields.get("env") or ()
    return "", ()


def _conditions(runbook: Runbook) -> Iterator[str]:
    for _, step in runbook.all_steps():
        for text in (step.when, step.changed_when, step.action.that if isinstance(step.action, Assert) else None):
            if text is not None:
                yield text


def _step_texts(step: RunbookStep) -> Iterator[str]:
    action = step.action
    if isinstance(action, Assert):
        yield from _texts(action.message)
    elif isinstance(action, Template):
        yield from _texts(dict(action.fields))
    else:
        yield from _texts(msgspec.structs.astuple(action))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, msgspec.Struct):
        yield from _texts(msgspec.structs.astuple(value))
