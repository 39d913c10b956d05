"""Values the launcher is asked for: each read once, checked, and held as a Secret from then on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bottle.errors import CredentialMissing
from bottle.host_keys import HostKeys
from bottle.manifest.kinds import Repository
from bottle.plan import BottlePlan
from bottle.providers.base import HostFacts
from bottle.providers.codex_auth import read_codex_auth
from opsexec.secret import Secret, reveal

MIN_TOKEN = 8
MAX_KEY = 64 << 10


@dataclass(frozen=True)
class Credentials:
    """`tokens`: by slot, for egress alone. `env`: by name, for the guest. `keys`: by repository, for the git gate."""

    tokens: Mapping[str, Secret] = field(default_factory=dict)
    env: Mapping[str, Secret] = field(default_factory=dict)
    keys: Mapping[str, Secret] = field(default_factory=dict)


def masked(plan: BottlePlan) -> Credentials:
    """Return empty values in every place: what a dry run and `bottle capabilities` go by."""
    empty = Secret("")
    return Credentials(
        dict.fromkeys(plan.egress.slots, empty),
        {name: empty for name, value in plan.env.items() if value.secret},
        dict.fromkeys(plan.repositories, empty),
    )


def gather(
    plan: BottlePlan, facts: HostFacts, ask: Callable[[str], str], environ: Mapping[str, str] | None = None
) -> Credentials:
    """Read every value; raises CredentialMissing, which names the variable or file and never a value.

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
    keys = {name: Secret(_key(name, each, plan.host_keys.get(name))) for name, each in plan.repositories.items()}
    # A person is asked last: nobody types a secret for a launch that then lacks a variable.
    for name, value in plan.env.items():
        if value.kind == "prompt":
            env[name] = Secret(ask(value.text or name))
    return Credentials(tokens, env, keys)


def too_short(secrets: Credentials) -> list[str]:
    """Return the names of secret variables whose values are too short to be recognised in what leaves the bottle."""
    return [name for name, value in secrets.env.items() if len(reveal(value).encode("utf-8", "replace")) < MIN_TOKEN]


def _key(name: str, repository: Repository, host: HostKeys | None) -> str:
    """Return the private key for an upstream; without a host key to hold that upstream to, none is read."""
    where = f"git-gate.repos {name}"
    if host is None or not host.keys:
        why = f" ({host.problem})" if host is not None else ""
        at = repository.upstream
        hint = f"`ssh-keyscan -p {at.port} {at.host}` shows it: add it once it is compared with what its operator says"
        raise CredentialMissing(f"{where} has no host_key, and none is known{why}", hint=hint)
    path = Path(os.path.expanduser(repository.identity))  # a name that nobody has stays as it is
    if not path.is_absolute():
        raise CredentialMissing(
            f"{where}: identity {repository.identity} is no absolute path", hint="or begin it with ~/"
        )
    try:
        with path.open("rb") as file:
            text = file.read(MAX_KEY).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialMissing(f"{where}: identity {path} can't be read as a private key") from error
    if "PRIVATE KEY" not in text:
        raise CredentialMissing(f"{where}: identity {path} is no private key", hint="the file without .pub")
    return text


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
