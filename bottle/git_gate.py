"""What a plan asks of the git gate: the daemon's configuration, and how the guest's git finds its way there. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bottle.credentials import Credentials
from bottle.manifest.kinds import Repository
from bottle.plan import BUNDLE, GIT_NATIVE_PORT, GIT_PORT, BottlePlan
from opsexec.secret import reveal

DAEMON = "git-gate"
WORK_BYTES = 2 << 30
"""Of memory, for all mirrors of a bottle and what is being pushed to them."""

SSH_PORT = 22
MAX_PUSH = 512 << 20
"""Bytes of one push: it is there twice, packed and unpacked for the scan, beside the mirror."""


def configuration(
    plan: BottlePlan, secrets: Credentials, sockets: Mapping[int, str], work_dir: str, gitleaks: str
) -> dict[str, Any]:
    """Return what the daemon reads on its stdin. It holds the upstreams' keys and the values that must not leave.

    `sockets`: what is behind each of the bundle's doors.
    """
    known: Mapping[str, Any] = {**secrets.tokens, **secrets.env}
    return {
        "bottle": plan.identity,
        "socket": sockets[GIT_PORT],
        "native": sockets.get(GIT_NATIVE_PORT),
        "work_dir": work_dir,
        "gitleaks": gitleaks,
        "repositories": {
            name: {
                "url": repository.url,
                "identity": reveal(secrets.keys[name]),
                "host_key": "\n".join(plan.host_keys[name].keys) if name in plan.host_keys else "",
                "policy": repository.policy.rendered(),
            }
            for name, repository in plan.repositories.items()
        },
        "known": [[name, reveal(value)] for name, value in known.items()],
        "limits": {"body_bytes": MAX_PUSH},
    }


def git_config(plan: BottlePlan) -> str:
    """Return the guest's `.gitconfig`: who commits, and the gate in the place of each upstream. Empty for neither."""
    lines = []
    if plan.git_user is not None:
        lines.append("[user]")
        rows = {"name": plan.git_user.name, "email": plan.git_user.email}
        lines += [f"\t{key} = {_quoted(value)}" for key, value in rows.items() if value]
    if plan.repositories:
        # The proxy's variables are egress's, which forwards nothing to the gate.
        lines += [f'[http "http://{plan.door(GIT_PORT)}/"]', '\tproxy = ""']
    for name, repository in plan.repositories.items():
        lines.append(f'[url "{address(plan, name)}"]')
        lines += [f"\tinsteadOf = {_quoted(each)}" for each in spellings(repository)]
    return "\n".join([*lines, ""]) if lines else ""


def spellings(repository: Repository) -> list[str]:
    """Return how people write a declared address: with `.git` or without, with ssh's own port, in the form of scp.

    git takes the longest that fits, and all of them are one repository behind the gate.
    """
    upstream = repository.upstream
    plain = upstream.path.rstrip("/").removesuffix(".git")
    host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    places = [f"ssh://{upstream.user}@{host}:{upstream.port}/"]
    if upstream.port == SSH_PORT:
        places += [f"ssh://{upstream.user}@{host}/", f"{upstream.user}@{host}:", f"{upstream.user}@{host}:/"]
    return list(dict.fromkeys([repository.url, *(f"{at}{plain}{end}" for at in places for end in ("", ".git"))]))


def address(plan: BottlePlan, name: str) -> str:
    """Return where the guest's git goes for a repository: by git's own protocol where that is spoken, the quicker."""
    if plan.backend == "docker":
        return f"git://{BUNDLE}/{name}"
    return f"http://{plan.door(GIT_PORT)}/{name}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
