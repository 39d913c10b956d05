"""Which variables are secret, and the refusal of those that would stand where others can read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opsexec.runbook.expression import parse_condition
from opsexec.runbook.field_types import MAY_BE_SECRET
from opsexec.runbook.masking import Masker
from opsexec.runbook.model import Assert, RunbookStep, Template
from opsexec.runbook.rendering import template_references
from opsexec.runbook.template import SecretMisplaced, misplaced, references
from opsexec.runbook.variables import Scope
from opsexec.secret_source import SecretSource


def secret_names(variables: Mapping[str, Any]) -> frozenset[str]:
    """Return the variables that are secrets, or texts that take one in."""
    secret = {name for name, value in variables.items() if isinstance(value, SecretSource)}
    grew = bool(secret)
    while grew:
        grew = False
        for name, value in variables.items():
            if name not in secret and isinstance(value, str) and any(r.name in secret for r in references(value)):
                secret.add(name)
                grew = True
    return frozenset(secret)


def refuse_said_secrets(template: Template, scope: Scope, masker: Masker) -> None:
    """Raise SecretMisplaced when what a step registered holds a secret and would stand where others can read it."""
    for reference, name, kind in template_references(template):
        if reference.name in scope.registered and kind not in MAY_BE_SECRET:
            said = scope.lookup(reference)
            if isinstance(said, str) and masker.holds(said):
                raise misplaced(f"${{{reference}}}", name)


def refuse_misplaced_secrets(step: RunbookStep, variables: Mapping[str, Any]) -> None:
    """Raise SecretMisplaced when the step would put a secret variable anywhere but env, stdin or content."""
    secret = secret_names(variables)
    if not secret:
        return
    for condition in (
        step.when,
        step.changed_when,
        step.action.that if isinstance(step.action, Assert) else None,
    ):
        for reference in parse_condition(condition).references() if condition is not None else ():
            if reference.name in secret:
                raise SecretMisplaced(
                    f"the condition {condition!r} reads the secret {reference.name!r}",
                    hint="conditions show in reports; decide on something else",
                )
    if isinstance(step.action, Assert):
        for reference in references(step.action.message or ""):
            if reference.name in secret:
                raise misplaced(step.action.message or "", "a message")
    elif isinstance(step.action, Template):
        for reference, name, kind in template_references(step.action):
            if reference.name in secret and kind not in MAY_BE_SECRET:
                raise misplaced(f"${{{reference}}}", name)
