"""The variables of one host: runbook vars < host vars < `--var`, the built-ins, and what steps registered."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from opsexec.errors import BadRunbook
from opsexec.runbook.reference import Reference, UndefinedVariable, descend, nearest
from opsexec.runbook.template import render, scalar_text, whole_reference
from opsexec.secret import Secret
from opsexec.secret_source import SecretSource
from opsexec.steps.environment import RUN_MARKER, is_loader

_EXPORTABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
MAX_DEPTH = 32
MAX_VALUES = 50_000


class Scope:
    """What `${name}` means on one host, now.

    A name that the runbook declares secret stays secret in every layer.
    """

    def __init__(
        self,
        *,
        runbook: Mapping[str, Any],
        host: Mapping[str, Any],
        overrides: Mapping[str, str],
        builtins: Mapping[str, Any],
        secrets: Mapping[SecretSource, Secret],
    ) -> None:
        self._runbook = runbook
        self._host = host
        self._overrides = overrides
        self._builtins = {name: value for name, value in builtins.items() if name != "tier"}
        self._fallback = {name: value for name, value in builtins.items() if name == "tier"}
        self._secrets = secrets
        self._resolving: list[str] = []
        self._resolved: dict[str, Any] = {}
        self._weights: dict[int, tuple[int, Any]] = {}
        self.registered: dict[str, Any] = {}

    def names(self) -> Iterator[str]:
        """Every name that is defined now."""
        seen = {}
        for layer in (
            self._builtins,
            self._fallback,
            self._runbook,
            self._host,
            self._overrides,
            self.registered,
        ):
            seen.update(dict.fromkeys(layer))
        return iter(seen)

    def lookup(self, reference: Reference) -> Any:
        """Return the value a reference stands for; raises UndefinedVariable."""
        name = reference.name
        if name in self.registered:
            return descend(reference, self.registered[name])
        if name not in self._resolved:
            self._resolved[name] = self._resolve(name)
        return descend(reference, self._resolved[name])

    def with_result(self, result: Any) -> Scope:
        """Return the same scope with `result` set: what `changed_when` sees."""
        scope = Scope(
            runbook=self._runbook,
            host=self._host,
            overrides=self._overrides,
            builtins={**self._builtins, **self._fallback},
            secrets=self._secrets,
        )
        scope.registered = {**self.registered, "result": result}
        return scope

    def environment(self) -> dict[str, str | Secret]:
        """Return what shell steps get: every scalar variable whose name an environment can carry.

        Names that decide which code a program loads are left out: those need an explicit `env` and its grant.
        """
        env: dict[str, str | Secret] = {}
        for name in self.names():
            if name in self.registered or not _EXPORTABLE.match(name) or name == RUN_MARKER:
                continue
            if is_loader(name):
                continue
            reference = Reference(name, ())
            value = self.lookup(reference)
            if isinstance(value, Secret):
                env[name] = value
            elif isinstance(value, (str, int, float)):
                env[name] = scalar_text(reference, value)
        return env

    def _resolve(self, name: str) -> Any:
        for layer in (self._builtins, self._overrides, self._host):
            if name in layer:
                value = self._reveal(layer[name])
                declared = isinstance(self._runbook.get(name), SecretSource) or isinstance(
                    self._host.get(name), SecretSource
                )
                return Secret(value) if declared and isinstance(value, str) else value
        if name in self._runbook:
            return self._resolve_runbook(name)
        if name in self._fallback:
            return self._fallback[name]
        raise UndefinedVariable(f"undefined variable {name!r}", hint=nearest(name, self.names()))

    def _resolve_runbook(self, name: str) -> Any:
        """A runbook's own variables may refer to others; a circle is an error."""
        if name in self._resolving:
            circle = " -> ".join([*self._resolving[self._resolving.index(name) :], name])
            raise BadRunbook(f"variables refer to each other in a circle: {circle}", hint="give one of them a value")
        if len(self._resolving) >= MAX_DEPTH:
            raise BadRunbook(f"variables refer to each other over {MAX_DEPTH} deep", hint="flatten them")
        self._resolving.append(name)
        try:
            value = self._fill(self._runbook[name])
        finally:
            self._resolving.pop()
        if self._weigh(value) > MAX_VALUES:
            raise BadRunbook(f"the variable {name!r} holds over {MAX_VALUES} values", hint="is this a bomb?")
        return value

    def _weigh(self, value: Any) -> int:
        """Return how many values there are in a value, those that it holds twice counted twice."""
        if not isinstance(value, (list, dict)):
            return 1
        if id(value) not in self._weights:
            inner = value.values() if isinstance(value, dict) else value
            # The value is kept beside its weight, so that its id stays its own.
            self._weights[id(value)] = (1 + sum(map(self._weigh, inner)), value)
        return self._weights[id(value)][0]

    def _fill(self, value: Any) -> Any:
        if isinstance(value, str):
            reference = whole_reference(value)
            return self.lookup(reference) if reference is not None else render(value, self)
        if isinstance(value, Mapping):
            return {key: self._fill(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._fill(each) for each in value]
        return self._reveal(value)

    def _reveal(self, value: Any) -> Any:
        return self._secrets[value] if isinstance(value, SecretSource) else value
