"""A directory on its way into a bottle: looked at first, then kept as what later changes are told by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from bottle.errors import LaunchFailed
from bottle.workspace.tree import Entry, Tree, dump, read_tree, total_size
from opsexec.executor import Executor, Stream
from opsexec.steps import ListTree, Push

MAX_ENTRIES = 300_000
MAX_BYTES = 16 << 30
"""What a workspace may hold, in bytes, as the lengths of its files say."""

OBJECTS = (".git/objects/***", ".git/lfs/***", ".git/annex/objects/***")
"""What of git's own store is not listed: it says nothing that a person reviews."""

SECRETS = {
    ".env": "settings that often hold secrets",
    ".env.*": "settings that often hold secrets",
    "*.env": "settings that often hold secrets",
    "id_rsa*": "a private key",
    "id_ed25519*": "a private key",
    "id_ecdsa*": "a private key",
    "id_dsa*": "a private key",
    "*.pem": "a certificate or a private key",
    "*.key": "a private key",
    "*.p12": "a private key",
    "*.pfx": "a private key",
    "*.jks": "a private key",
    "*.keystore": "a private key",
    "*.kdbx": "a password store",
    "*.ppk": "a private key",
    ".netrc": "logins",
    "_netrc": "logins",
    ".npmrc": "a registry's token",
    ".pypirc": "a registry's token",
    ".git-credentials": "logins",
    ".dockercfg": "a registry's login",
    ".pgpass": "logins",
    ".my.cnf": "logins",
    ".htpasswd": "logins",
    "credentials": "logins",
    "credentials.*": "logins",
    "secrets.*": "secrets, by its name",
    "service-account*.json": "a cloud's key",
    "*serviceaccount*.json": "a cloud's key",
    "terraform.tfstate*": "state that holds secrets",
    "*.tfvars": "settings that often hold secrets",
    "kubeconfig*": "a cluster's login",
    "auth.json": "logins",
}
HARMLESS = (".env.example", ".env.sample", ".env.template", ".env.dist", "*.pub", "*.pem.example")
SECRET_DIRECTORIES = {
    ".ssh": "ssh's keys",
    ".gnupg": "gpg's keys",
    ".aws": "a cloud's keys",
    ".kube": "clusters' logins",
}

_LOGIN = re.compile(rb"://[^/\s:@]+:[^/\s@]+@")


@dataclass(frozen=True)
class Looked:
    """What a directory holds that a person should know before an agent gets it. `count`, `size`: entries, bytes."""

    count: int
    size: int
    secrets: tuple[tuple[str, str], ...]


class Kept:
    """A sink that keeps all of stdout: a step's output holds the last 64 KiB only."""

    def __init__(self) -> None:
        self.data = bytearray()

    async def write(self, stream: Stream, data: bytes) -> None:
        """Keep a block."""
        if stream == "stdout":
            self.data += data


async def list_tree(ex: Executor, step: ListTree) -> Tree:
    """Return a listing as a tree; raises ProtocolError, and what the step does."""
    kept = Kept()
    out = await ex.run(step, kept)
    value: Mapping[str, object] = out.value if isinstance(out.value, dict) else {}
    if not value.get("exists"):
        raise LaunchFailed(f"there is no directory {step.path}", host=ex.host)
    return read_tree(bytes(kept.data), value, ex.host)


def needs(source: str, base: str) -> list[str]:
    """Return the capabilities that `look` and `take_in` use on the launcher's own machine."""
    read = [f"fs.read:{place}{more}" for place in (source, base) for more in ("", "/**")]
    return [*read, f"sync.push:{base}", f"sync.push:{base}/**", f"fs.write:{base}"]


def excludes(source: str, state: str) -> tuple[str, ...]:
    """Return what is never copied: this program's own state, where the directory holds it."""
    inside = state.removeprefix(source.rstrip("/"))
    return (f"{inside}/***",) if inside != state and inside.startswith("/") else ()


async def look(ex: Executor, source: str, state: str) -> Looked:
    """List what would be copied, unread; raises LaunchFailed where it is more than a workspace may hold."""
    if source.rstrip("/") == "":
        raise LaunchFailed("the whole file system is no workspace", hint="start it in a project's directory")
    patterns = (*OBJECTS, *excludes(source, state))
    tree = await list_tree(ex, ListTree(path=source, excludes=patterns, max_entries=MAX_ENTRIES, max_bytes=0))
    size = total_size(tree.entries.values())
    if not tree.whole:
        raise LaunchFailed(f"{source} holds over {MAX_ENTRIES} entries", hint="start it in a smaller directory")
    if size > MAX_BYTES:
        text = f"the files of {source} are {size >> 20} MiB long, over {MAX_BYTES >> 20}"
        raise LaunchFailed(text, hint="a sparse file counts by its length; move it elsewhere")
    found = [(path, why) for path, entry in tree.entries.items() if (why := secret(entry))]
    files = (path for path, entry in tree.entries.items() if entry.kind == "file")  # a fifo would be waited for
    found += [(path, "an address with a login in it") for path in files if _has_login(source, path)]
    return Looked(len(tree.entries), size, tuple(found))


def secret(entry: Entry) -> str | None:
    """Return what a file or directory holds by its name that an agent rarely needs; None for anything else."""
    name = entry.path.rpartition("/")[2].lower()
    if entry.kind == "directory":
        return SECRET_DIRECTORIES.get(name)
    if any(fnmatchcase(name, pattern) for pattern in HARMLESS):
        return None
    return next((why for pattern, why in SECRETS.items() if fnmatchcase(name, pattern)), None)


def _has_login(source: str, path: str) -> bool:
    """True for a git configuration that names a remote with its password or token."""
    if not (path == ".git/config" or path.endswith("/.git/config")):
        return False
    try:
        with open(f"{source}/{path}", "rb") as file:
            return _LOGIN.search(file.read(1 << 20)) is not None
    except OSError:
        return False


async def take_in(ex: Executor, source: str, directory: Path) -> Path:
    """Copy a directory to where its state at start is kept, and write down what that is; returns the copy's place."""
    base = directory / "base"
    base.mkdir(mode=0o700, exist_ok=True)
    await ex.run(Push(source.rstrip("/") + "/", str(base), excludes=excludes(source, str(directory.parent))))
    tree = await list_tree(ex, ListTree(path=str(base), excludes=OBJECTS, max_entries=2 * MAX_ENTRIES))
    (directory / "base.jsonl").write_bytes(dump(tree))
    return base
