"""Values the launcher is asked for: each read once, checked, and held as a Secret from then on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bottle.errors import CredentialMissing
from bottle.plan import BottlePlan
from bottle.providers.base import HostFacts
from bottle.providers.codex_auth import read_codex_auth
from opsexec.secret import Secret

MIN_TOKEN = 8


@dataclass(frozen=True)
class Credentials:
    """`tokens`: by slot, for egress alone. `env`: by name, for the guest."""

    tokens: Mapping[str, Secret] = field(default_factory=dict)
    env: Mapping[str, Secret] = field(default_factory=dict)


def masked(plan: BottlePlan) -> Credentials:
    """Return empty values in every place: what a dry run and `bottle capabilities` go by."""
    empty = Secret("")
    return Credentials(
        dict.fromkeys(plan.egress.slots, empty),
        {name: empty for name, value in plan.env.items() if value.secret},
    )


def gather(
    plan: BottlePlan, facts: HostFacts, ask: Callable[[str], str], environ: Mapping[str, str] | None = None
) -> Credentials:
    """Read every value; raises CredentialMissing, which names the variable and never a value.

    `ask` gets a question and returns what was typed, unseen.
    """
    source = os.environ if environ is None else environ
    tokens = {}
    for slot, token in plan.egress.slots.items():
        if token.kind == "codex":
            tokens[slot] = Secret(read_codex_auth(facts.codex_auth or "", facts.now).token)
            continue
        tokens[slot] = Secret(_token(token.name, source))
    env = {}
    for name, value in plan.env.items():
        if value.kind == "host":
            if value.text not in source:
                raise CredentialMissing(f"env {name} wants ${value.text}, which isn't set", hint=f"export {value.text}")
            env[name] = Secret(source[value.text])
        elif value.kind == "prompt":
            env[name] = Secret(ask(value.text or name))
    return Credentials(tokens, env)


def _token(name: str, source: Mapping[str, str]) -> str:
    value = source.get(name, "")
    if not value:
        raise CredentialMissing(f"a route wants the token in ${name}, which isn't set", hint=f"export {name}")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise CredentialMissing(f"${name} holds a character that no token has", hint="a line break at its end?")
    if len(value) < MIN_TOKEN:
        text = f"${name} holds fewer than {MIN_TOKEN} characters, too few to be recognised in what leaves the bottle"
        raise CredentialMissing(text, hint="is it the whole token?")
    return value
