"""A definition that waits, as it was, outside of the bundle while its service is in quarantine."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from agent.services.acts import Act
from agent.services.bundle import read_whole
from opsexec.errors import StepFailed
from opsexec.steps import Link, MakeDir, RemoveFile, ServiceControl, ServiceDefinition, Stat, WriteFile
from opsexec.steps.base import Step

if TYPE_CHECKING:
    from opsexec.executor import Executor

NOTE = "restore.json"
DEFINITION = "definition"
LIMIT = 32 << 20


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What release puts back. `path`: None when the definition stands where a mask doesn't need the place."""

    unit: str
    user: bool
    path: str | None = None
    target: str | None = None
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    sha256: str | None = None
    unit_file_state: str = ""
    active_state: str = ""

    @property
    def was_enabled(self) -> bool:
        """Whether it was to start by itself."""
        return self.unit_file_state == "enabled"


async def hold(executor: Executor, place: str, path: str, unit: str, user: bool, state: dict[str, str]) -> Held:
    """Copy a definition to where it waits, and check the copy; raises OpsError. Nothing is moved yet."""
    stat = (await executor.run(Stat(path))).value
    held = Held(
        unit=unit, user=user, unit_file_state=state.get("UnitFileState", ""), active_state=state.get("ActiveState", "")
    )
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


async def back(executor: Executor, held: Held, place: str) -> list[Act]:
    """Return the acts that put a definition back as it was, but for starting it; raises StepFailed, OpsError."""
    acts = [Act("unmask", ServiceDefinition(held.unit, "unmask", held.user), "let it be started again")]
    if held.path is not None:
        step: Step = Link(held.path, held.target or "") if held.target else await _copy_back(executor, held, place)
        acts.append(Act("restore-definition", step, "put the definition back"))
    acts.append(Act("reload", ServiceDefinition(held.unit, "reload", held.user), "let the manager read it"))
    if held.was_enabled:
        acts.append(Act("enable", ServiceControl(held.unit, "enable", held.user), "it was enabled"))
    return acts


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
