"""A definition that waits, as it was, outside of the bundle while its service is in quarantine."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from agent.services.acts import Act
from agent.services.bundle import read_whole
from agent.services.manager import Held
from opsexec.errors import CapabilityDenied, StepFailed
from opsexec.steps import MakeDir, MoveFile, RemoveFile, Stat, WriteFile

if TYPE_CHECKING:
    from opsexec.executor import Executor

NOTE = "restore.json"
DEFINITION = "definition"


async def hold(executor: Executor, place: str, path: str, held: Held) -> Held:
    """Note what is to be put back, beside where the definition will wait; raises OpsError. Nothing is moved yet."""
    stat = (await executor.run(Stat(path))).value
    await executor.run(MakeDir(place, mode="0700"))
    if stat["exists"]:
        held = msgspec.structs.replace(
            held, path=path, target=stat["target"], mode=stat["mode"], owner=stat["owner"], group=stat["group"],
            sha256=stat.get("sha256"),
        )  # fmt: skip
    await executor.run(WriteFile(f"{place}/{NOTE}", data=msgspec.json.encode(held), mode="0600"))
    return held


async def put_aside(executor: Executor, place: str, path: str, created: str) -> str | None:
    """Move a definition that waits already out of the way; returns where it is then. Raises OpsError.

    One of the same content, too: nothing is moved over it. Two names of one file are half a move, which goes on.
    """
    waiting = f"{place}/{DEFINITION}"
    there, here = (await executor.run(Stat(waiting))).value, (await executor.run(Stat(path))).value
    if not there["exists"]:
        return None
    if (there.get("sha256"), there["target"]) == (here.get("sha256"), here["target"]):
        with suppress(StepFailed, CapabilityDenied):
            await executor.run(MoveFile(path, waiting), check=True)
            return None
    aside = f"{place.rpartition('/')[0]}/earlier-{re.sub(r'[^0-9TZ]', '', created)}"
    await executor.run(MoveFile(waiting, aside))
    return aside


def withdraw(path: str, place: str) -> Act:
    """Return the act that moves a definition to where it waits."""
    return Act("move-definition", MoveFile(path, f"{place}/{DEFINITION}"), "it waits there, as it is")


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
    waiting = f"{place}/{DEFINITION}"
    stat = (await executor.run(Stat(waiting))).value
    if stat["exists"] and (stat.get("sha256"), stat["target"]) != (held.sha256, held.target):
        raise StepFailed(f"{waiting} isn't what was taken away", hint="restore it from a backup")
    return [Act("restore-definition", MoveFile(waiting, held.path), "put the definition back")]


def forget(place: str) -> Act:
    """Return the act that removes what waited."""
    return Act("forget-copy", RemoveFile(place, recursive=True), "nothing waits any more")
