"""What the gate is told on its stdin, and the declared repositories it makes of that on its own disk."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from opsexec.errors import UsageError
from opsexec.far.git_policy import DEFAULTS

_KEY_TYPE = re.compile(r"(?:ssh-[a-z0-9-]+|ecdsa-[a-z0-9-]+|sk-[a-z0-9@.-]+)\Z")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")

_ASSIGNED = (
    r"""(?i)(?:api[_-]?key|secret|token|passwd|password)["']?\s{0,3}[:=]{1,2}\s{0,3}"""
    r"""["']([0-9A-Za-z_+/=-]{32,200})["']"""
)
RULES = f"""title = "git gate"
[extend]
useDefault = true
disabledRules = ["generic-api-key", "curl-auth-header", "curl-auth-user"]

[[rules]]
id = "assigned-secret"
description = "a long random text under a name that says secret"
regex = '''{_ASSIGNED}'''
secretGroup = 1
entropy = 4.4
keywords = ["key", "secret", "token", "passwd", "password"]

[[allowlists]]
description = "the example every document of JSON web tokens shows"
regexTarget = "match"
regexes = ['''SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c''']
"""
"""gitleaks' own rules but those that guess by the words around; in their place one that asks for real randomness.

The ones left out rely on file names to be quiet about lock files and tests, and here nothing has a name.
"""


@dataclass(frozen=True)
class Limits:
    """Bounds of the gate: seconds, bytes, counts.

    `idle_s`: how long a client may say nothing; `pack_s`: between the commands of a push by git:// and its pack.
    `ready_s`, `line_s`: how long a scanner and a login wait for a push that was announced. `pushes`: taken at the same
    time; more wait.
    `memory_bytes`: of each git of ours that reads or writes a pack. `calm_s`, `packs`: how long nobody may have wanted
    a mirror, and what it must hold more of, before its upkeep. `room_bytes`: what must be free for a push to begin.
    """

    idle_s: float = 15.0
    pack_s: float = 300.0
    request_s: float = 900.0
    fetch_s: float = 300.0
    scan_s: float = 300.0
    forward_s: float = 300.0
    fresh_s: float = 30.0
    ready_s: float = 60.0
    line_s: float = 15.0
    body_bytes: int = 2 << 30
    updates: int = 256
    requests: int = 16
    connections: int = 128
    pushes: int = 2
    memory_bytes: int = 2 << 30
    cpu_s: int = 600
    calm_s: float = 10.0
    packs: int = 40
    room_bytes: int = 32 << 20


@dataclass(frozen=True)
class Declaration:
    """One repository as the manifest declares it. `identity`: the private key itself; `host_key`: the host's keys."""

    url: str
    identity: str
    host_key: str
    policy: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GateConfig:
    """Everything the gate is told. `known`: name -> value that must not leave; it holds secrets, as `identity` does.

    `native`: where git's own protocol is spoken, None = nowhere.
    """

    bottle: str
    socket: Path
    work_dir: Path
    gitleaks: str
    repositories: Mapping[str, Declaration]
    known: Mapping[str, str]
    limits: Limits
    native: Path | None = None


def read_config(text: bytes) -> GateConfig:
    """Return the configuration in a JSON object; raises UsageError for anything else."""
    try:
        found = json.loads(text)
        repositories = {
            str(name): Declaration(
                str(each["url"]), str(each["identity"] or ""), str(each.get("host_key") or ""), each.get("policy", {})
            )
            for name, each in found["repositories"].items()
        }
        config = GateConfig(
            bottle=str(found["bottle"]),
            socket=Path(found["socket"]),
            work_dir=Path(found["work_dir"]),
            gitleaks=str(found["gitleaks"]),
            repositories=repositories,
            known={str(name): str(value) for name, value in found.get("known", [])},
            limits=Limits(**found.get("limits", {})),
            native=Path(found["native"]) if found.get("native") else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"the git gate's configuration is malformed ({type(error).__name__})") from None
    for name, declaration in repositories.items():
        unknown = set(declaration.policy) - set(DEFAULTS)
        if unknown:
            raise UsageError(f"the policy of {name[:60]!r} has the key {min(unknown)[:60]!r}", hint=", ".join(DEFAULTS))
        if not _NAME.match(name) or name in (".", ".."):
            raise UsageError(f"repository {name[:60]!r} is malformed", hint="letters, digits and ._-")
    return config


def declare(config: GateConfig, name: str) -> Path:
    """Make a repository's directory, the gate's alone, and return it."""
    declaration = config.repositories[name]
    place = config.work_dir / "repositories" / name
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = {"url": declaration.url, "policy": dict(declaration.policy)}
    _write(place / "declared.json", json.dumps(said))
    key = declaration.identity
    _write(place / "identity", key if not key or key.endswith("\n") else key + "\n")
    _write(place / "known_hosts", known_hosts(declaration.url, declaration.host_key))
    _write(place / "gitleaks.toml", RULES)
    return place


def known_hosts(url: str, host_key: str) -> str:
    """Return the known_hosts text for an upstream: a line of `host_key` may be such a line, or a key alone.

    Empty for none.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 22
    name = host if port == 22 else f"[{host}]:{port}"
    lines = []
    for line in host_key.splitlines():
        words = line.split()
        if words:
            lines.append(" ".join([name, *words] if _KEY_TYPE.match(words[0]) else words) + "\n")
    return "".join(lines)


def _write(path: Path, text: str) -> None:
    """Write a file that is nobody else's to read, from its first byte on."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)
