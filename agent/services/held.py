"""A definition that waits, as it was, outside of the bundle while its service is in quarantine."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from agent.services.acts import Act
from agent.services.bundle import read_whole
from agent.services.manager import Held
from opsexec.errors import StepFailed
from opsexec.steps import Link, MakeDir, RemoveFile, Stat, WriteFile
from opsexec.steps.base import Step

if TYPE_CHECKING:
    from opsexec.executor import Executor

NOTE = "restore.json"
DEFINITION = "definition"
LIMIT = 32 << 20


async def hold(executor: Executor, place: str, path: str, held: Held) -> Held:
    """Copy a definition to where it waits, and check the copy; raises OpsError. Nothing is moved yet."""
    stat = (await executor.run(Stat(path))).value
    await executor.run(MakeDir(place, mode="0700"))
    if stat["exists"] and stat["kind"] == "link":
        held = msgspec.structs.replace(held, path=path, target=stat["target"])
    elif stat["exists"]:
        data, mode = await read_whole(executor, path, LIMIT)
        digest = hashlib.sha256(data).hexdigest()
        copy = f"{place}/{DEFINITION}"
        await executor.run(WriteFile(copy, data=data, mode="0600"))
        if (await read_whole(executor, copy, LIMIT))[0] != data:
            raise StepFailed(f"{copy} doesn't hold what {path} does", hint="is the disk full?")
        held = msgspec.structs.replace(
            held, path=path, mode=mode, owner=stat["owner"], group=stat["group"], sha256=digest
        )
    await executor.run(WriteFile(f"{place}/{NOTE}", data=msgspec.json.encode(held), mode="0600"))
    return held


async def read_held(executor: Executor, place: str) -> Held:
    """Return what waits; raises StepFailed, OpsError."""
    path = f"{place}/{NOTE}"
    data, _ = await read_whole(executor, path, 1 << 16)
    try:
        return msgspec.json.decode(data, type=Held)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StepFailed(f"{path} says nothing that can be restored: {error}") from error


async def restore(executor: Executor, held: Held, place: str) -> list[Act]:
    """Return the act that puts a definition back as it was, where one waits; raises StepFailed, OpsError."""
    if held.path is None:
        return []
    step: Step = Link(held.path, held.target or "") if held.target else await _copy_back(executor, held, place)
    return [Act("restore-definition", step, "put the definition back")]


async def _copy_back(executor: Executor, held: Held, place: str) -> WriteFile:
    path = f"{place}/{DEFINITION}"
    data, _ = await read_whole(executor, path, LIMIT)
    if hashlib.sha256(data).hexdigest() != held.sha256:
        raise StepFailed(f"{path} isn't what was taken away", hint="restore it from a backup")
    assert held.path is not None
    return WriteFile(held.path, data=data, mode=held.mode, owner=held.owner, group=held.group)


def forget(place: str) -> Act:
    """Return the act that removes what waited."""
    return Act("forget-copy", RemoveFile(place, recursive=True), "the copy isn't needed any more")
