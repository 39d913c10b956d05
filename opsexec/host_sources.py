"""Where hosts come from beside the inventory file: `~/.ssh/config` and the tailnet."""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opsexec.errors import BadInventory

MAX_INCLUDE_DEPTH = 16
"""ssh_config(5)'s own limit on nested Include."""

TAILSCALE_TIMEOUT_S = 10.0
_KEYWORD = re.compile(r"\s*([A-Za-z]+)(?:\s*=\s*|\s+)(.*)")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


def ssh_config_hosts(path: Path) -> list[str]:
    """Return the names of the Host entries without wildcard or negation, in order, with Include followed.

    Raises BadInventory when the file, or one that it includes, can't be read.
    """
    names: dict[str, None] = {}
    _read_ssh_config(Path(os.path.expanduser(path)), names, 0)
    return list(names)


def _read_ssh_config(path: Path, names: dict[str, None], depth: int) -> None:
    if depth > MAX_INCLUDE_DEPTH:
        raise BadInventory(
            f"{path}: Include is nested over {MAX_INCLUDE_DEPTH} deep", hint="does a file include itself?"
        )
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise BadInventory(
            f"{path}: can't be read as ssh config ({error.strerror})",
            hint="set sources.ssh_config = false, or name a file",
        ) from error
    for number, line in enumerate(text.splitlines(), 1):
        match = _KEYWORD.match(line)
        if match is None or line.lstrip().startswith("#"):
            continue
        keyword = match[1].lower()
        if keyword not in ("host", "include"):
            continue
        try:
            words = shlex.split(match[2], comments=True)
        except ValueError as error:
            raise BadInventory(f"{path}:{number}: {error}", hint="close the quote") from error
        if keyword == "host":
            names.update((word, None) for word in words if _PLAIN.match(word))
            continue
        for word in words:
            for found in _included(word):
                _read_ssh_config(found, names, depth + 1)


def _included(pattern: str) -> list[Path]:
    """Return the files an Include names; relative ones stand under ~/.ssh (ssh_config(5))."""
    pattern = os.path.expanduser(pattern)
    if not pattern.startswith("/"):
        pattern = os.path.join(os.path.expanduser("~/.ssh"), pattern)
    return [Path(found) for found in sorted(glob.glob(pattern))]


async def tailnet_hosts(tags: Sequence[str], program: str = "tailscale") -> list[tuple[str, tuple[str, ...]]]:
    """Return (name, tags) of each peer on the tailnet that has one of `tags` (all peers when none is given).

    Raises BadInventory when there is no `tailscale` here, it fails, or it doesn't answer within 10 s.
    """
    import anyio

    try:
        with anyio.fail_after(TAILSCALE_TIMEOUT_S):
            answer = await anyio.run_process([program, "status", "--json"], check=False)
    except FileNotFoundError as error:
        raise BadInventory(
            "sources.tailnet needs the tailscale program, which is not installed here",
            hint="install tailscale, or take tailnet out of [sources]",
        ) from error
    except TimeoutError as error:
        raise BadInventory(
            f"`tailscale status` gave no answer within {TAILSCALE_TIMEOUT_S:g} s",
            hint="is tailscaled running?",
        ) from error
    except OSError as error:
        text = f"sources.tailnet can't start the tailscale program: {error.strerror}"
        raise BadInventory(text, hint="mend it, or take tailnet out of [sources]") from error
    if answer.returncode != 0:
        said = answer.stderr.decode("utf-8", "replace").strip().partition("\n")[0][:200]
        raise BadInventory(f"`tailscale status` failed: {said or answer.returncode}", hint="run `tailscale up` first")
    try:
        status = json.loads(answer.stdout)
    except ValueError as error:
        raise BadInventory("`tailscale status --json` did not answer JSON", hint="update tailscale") from error
    return tailnet_peers(status, tags)


def tailnet_peers(status: Any, tags: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return (name, tags) of the peers in a `tailscale status --json` answer, sorted by name.

    A name is what this tailnet gave its own node: nodes that are shared in, and what a node calls itself, don't count.
    """
    answer = status if isinstance(status, dict) else {}
    peers = answer.get("Peer")
    tailnet = answer.get("CurrentTailnet") or {}
    suffix = str(tailnet.get("MagicDNSSuffix") or answer.get("MagicDNSSuffix") or "").strip(".").lower()
    found: dict[str, tuple[str, ...]] = {}
    for peer in (peers or {}).values():
        name, _, domain = str(peer.get("DNSName") or "").rstrip(".").lower().partition(".")
        carried = tuple(str(tag) for tag in peer.get("Tags") or ())
        if _PLAIN.match(name) and domain == suffix and (not tags or set(tags) & set(carried)):
            found[name] = carried
    return sorted(found.items())
