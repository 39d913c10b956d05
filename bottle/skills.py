"""Skills: directories of the operator's, copied to where the agent looks for its own. What was shown is what goes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bottle.errors import BadManifest, LaunchFailed
from bottle.manifest.store import home_root
from bottle.plan import GUEST_HOME, BottlePlan
from bottle.workspace.copy_in import list_tree
from bottle.workspace.protected import leads_astray
from bottle.workspace.tree import dump
from opsexec.capability import CapabilitySet
from opsexec.executor import Executor
from opsexec.steps import ListTree, Push

PLACES = {"claude": ".claude/skills", "codex": ".codex/skills"}
ELSEWHERE = "skills"
"""Below the guest's home: where each provider's agent looks, and where any other finds them."""

MAX_ENTRIES = 5000
MAX_BYTES = 64 << 20
OTHERS = 0o002


@dataclass(frozen=True)
class Skill:
    """One skill: where it is on the launcher, and the sha256 over all that it holds."""

    name: str
    source: str
    digest: str


def found(names: Sequence[str]) -> tuple[Skill, ...]:
    """Return the skills of these names, read; raises BadManifest for one that isn't there or isn't fit to be copied."""
    if not names:
        return ()
    return asyncio.run(_found({name: _locate(name) for name in names}))


def _locate(name: str) -> Path:
    """Return a skill's directory: of the home root, else of the operator's own claude."""
    places = [home_root().resolve() / "skills" / name, Path.home().resolve() / ".claude" / "skills" / name]
    for place in places:
        try:
            info = os.lstat(place)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(info.st_mode):
            raise BadManifest(f"the skill {name} at {place} is no directory of its own", hint="copy it there")
        if info.st_uid not in (0, os.geteuid()):
            raise BadManifest(f"the skill {name} at {place}: belongs to uid {info.st_uid}, not to you", hint="own it")
        above = place.parent.stat().st_mode
        if info.st_mode & OTHERS:
            raise BadManifest(f"the skill {name} at {place}: others may write it", hint=f"chmod o-w {place}")
        if above & OTHERS and not above & stat.S_ISVTX:
            text = f"the skill {name} at {place}: others may put another in its place"
            raise BadManifest(text, hint=f"chmod o-w {place.parent}")
        return place
    raise BadManifest(f"there is no skill {name!r}", hint="looked at " + " and ".join(map(str, places)))


async def _found(places: dict[str, Path]) -> tuple[Skill, ...]:
    from opsexec.local import LocalExec

    granted = CapabilitySet.of(*(f"fs.read:{place}{more}" for place in places.values() for more in ("", "/**")))
    async with LocalExec(capabilities=granted) as ex:
        return tuple([Skill(name, str(place), await _digest(ex, name, str(place))) for name, place in places.items()])


async def _digest(ex: Executor, name: str, place: str) -> str:
    """Return the sha256 over a skill's listing; raises BadManifest for what doesn't belong in one."""
    tree = await list_tree(ex, ListTree(path=place, max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES))
    if not tree.whole or tree.unreadable:
        raise BadManifest(f"the skill {name} holds over {MAX_ENTRIES} entries, or some that can't be read")
    for path, entry in tree.entries.items():
        if entry.kind == "link" and leads_astray(entry):
            raise BadManifest(f"the skill {name} has {path}, {leads_astray(entry)}", hint="put the file itself there")
        if entry.kind not in ("file", "directory", "link"):
            raise BadManifest(f"the skill {name} has {path}, a {entry.kind}", hint="take it out")
        if entry.kind != "link" and entry.mode & OTHERS:
            raise BadManifest(f"the skill {name} at {place}: others may write {path}", hint=f"chmod -R o-w {place}")
        if entry.kind == "file" and entry.sha256 is None:
            raise BadManifest(f"the skill {name} is over {MAX_BYTES >> 20} MiB", hint="take the large files out")
    return hashlib.sha256(dump(tree)).hexdigest()


def target(plan: BottlePlan, name: str) -> str:
    """Return where the guest has a skill."""
    return f"{GUEST_HOME}/{PLACES.get(plan.provider.name, ELSEWHERE)}/{name}"


def lines(skills: Sequence[Skill]) -> list[str]:
    """Return what the summary says of them."""
    return [f"{'skill':<13} {each.name} from {each.source} sha256:{each.digest}" for each in skills]


def kept(plan: BottlePlan, skills: Sequence[Skill], directory: Path) -> BottlePlan:
    """Copy the skills beside the bottle, and return the plan that takes them from there.

    Raises LaunchFailed where one isn't what was shown any more.
    """
    return asyncio.run(_kept(plan, skills, directory)) if skills else plan


async def _kept(plan: BottlePlan, skills: Sequence[Skill], directory: Path) -> BottlePlan:
    from opsexec.local import LocalExec

    copies = directory / "skills"
    copies.mkdir(mode=0o700, exist_ok=True)
    granted = [f"{verb}:{copies}/**" for verb in ("fs.read", "fs.write", "sync.push")]
    given = []
    async with LocalExec(capabilities=CapabilitySet.of(*granted)) as ex:
        for each in skills:
            copy = copies / each.name
            copy.mkdir(mode=0o700, exist_ok=True)
            await ex.run(Push(f"{each.source}/", str(copy), delete=True))
            if await _digest(ex, each.name, str(copy)) != each.digest:
                raise LaunchFailed(f"the skill {each.name} changed since it was shown", hint="start it again")
            given.append((str(copy), target(plan, each.name)))
    return replace(plan, skill_copies=tuple(given))
