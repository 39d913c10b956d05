"""What a bottle's manifests said when it was started, kept beside it: a resume needn't judge the same words again.

Reading and validating them takes longer than all else a launcher does. What is kept counts while every file is, word
for word, the one it was made of, is still the one that would be read, and is judged by the same code as then; each
file is read, and whose it is looked at, as ever. What `extends`, a new agent in the directory, another mode or an
upgrade changes is read again from the start.
"""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

import msgspec

import opsexec
from bottle.manifest.store import Loaded, Manifests
from opsexec.plain_file import NotPlain, read_plain

NAME = "manifests.json"
MAX_BYTES = 8 << 20


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`judged_by`: the code that read them; `loaded`: what it found."""

    judged_by: str
    loaded: Loaded


def keep(directory: Path, loaded: Loaded) -> None:
    """Write down what was read, the operator's alone; it holds no secret, as manifests hold none."""
    path = directory / NAME
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(msgspec.json.encode(Kept(judged_by(), loaded)))
    beside.replace(path)


def load(directory: Path, manifests: Manifests, agent: str) -> Loaded:
    """Return an agent with its bottle: what was kept where that still holds, else what is read now.

    Raises BadManifest.
    """
    found = _found(directory / NAME)
    if found is None or found.judged_by != judged_by() or found.loaded.name != agent:
        return manifests.load(agent)
    loaded = found.loaded
    same = loaded.sources[:1] == (loaded.source,) and manifests.holds(agent, loaded.sources)
    return loaded if same else manifests.load(agent)


def _found(path: Path) -> Kept | None:
    """Return what is kept, None where it isn't all there, or others than this user may have written it."""
    try:
        data, info = read_plain(path, MAX_BYTES)
    except (OSError, NotPlain):
        return None
    if info.st_uid != os.geteuid() or info.st_mode & 0o077:
        return None
    try:
        return msgspec.json.decode(data, type=Kept)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def judged_by() -> str:
    """Return the sha256 over all that decides what a manifest means: our own code and pydantic's version."""
    whole = hashlib.sha256()
    places = [*sorted(Path(__file__).parent.glob("*.py")), Path(opsexec.__path__[0]) / "runbook" / "yaml_nodes.py"]
    judge = find_spec("pydantic")
    if judge is not None and judge.origin is not None:
        places.append(Path(judge.origin).with_name("version.py"))
    for place in places:
        data = place.read_bytes()
        whole.update(f"{place.name} {len(data)}\0".encode() + data)
    return whole.hexdigest()
