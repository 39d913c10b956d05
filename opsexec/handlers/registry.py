"""Finds the handler of a Step's family; a family's module is loaded when its first Step comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib import import_module
from typing import Any, cast

from opsexec.errors import BadStep
from opsexec.handlers.context import Context, Outcome
from opsexec.steps.base import Step

Handler = Callable[[Any, Context], Awaitable[Outcome]]
FAMILIES = frozenset({
    "process", "files", "sync", "services", "observe", "agent", "doctor", "sandbox", "git", "podman", "containers",
    "trees", "launchd",
})  # fmt: skip


@cache
def _family(name: str) -> Handler:
    return cast(Handler, import_module(f"opsexec.handlers.{name}").handle)


def handler_of(step: Step) -> Handler:
    """Return `handle(step, context)` of the step's family; raises BadStep where there is none."""
    given: object = step
    if not isinstance(given, Step):
        raise BadStep(f"{repr(given)[:80]} is no Step", hint='like Exec(["id"])')
    if step.family not in FAMILIES:
        raise BadStep(f"a {type(step).__name__} step can't be run like this", hint="a Tty is opened with open_tty()")
    return _family(step.family)
