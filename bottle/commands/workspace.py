"""`bottle diff` and `bottle pull`: what an agent did to its copy of a directory, shown, written down, or applied."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bottle import hosting
from bottle.errors import NoSuchBottle
from bottle.manifest.store import home_root
from bottle.preflight import shown
from bottle.state import State
from bottle.workspace import apply as applying
from bottle.workspace.changes import Held
from bottle.workspace.review import Review, needs, read_base, review
from opsexec.capability import CapabilitySet
from opsexec.errors import UsageError

GUEST_WORKSPACE = ("home", "workspace")
DANGEROUS = ("hooks", "config", "config.worktree", "info", "modules", "worktrees", "commondir", "gitdir", "objects")
"""What of a `.git` a line of its own is worth."""


def diff(arguments: argparse.Namespace) -> int:
    """Print the patch, or with --json what it would hold; what isn't in it goes to stderr."""
    found = asyncio.run(_review(arguments))
    if arguments.json:
        print(json.dumps(summary(found)))
        return 0
    show_patch(found.patch)
    for line in (*notes(found), *([] if found.compared.changes else ["no change that a patch could hold"])):
        print(f"bottle: {line}", file=sys.stderr)
    return 0


def pull(arguments: argparse.Namespace) -> int:
    """Write the patch to a file, or apply it to the directory that the copy was made from."""
    found = asyncio.run(_review(arguments))
    for line in () if arguments.json else notes(found):
        print(f"bottle: {line}", file=sys.stderr)
    if not found.whole:
        raise UsageError("not all of the copy could be seen, so nothing is brought back", hint="`bottle diff` shows it")
    if not found.compared.changes:
        return _told(arguments, found, "nothing to bring back")
    if arguments.apply:
        return _apply(arguments, found)
    if arguments.output == "-":
        sys.stdout.buffer.write(found.patch)
        return 0
    path = Path(arguments.output or f"{arguments.identity}.patch")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except FileExistsError as error:
        raise UsageError(f"{path} exists", hint="-o FILE names another") from error
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}", hint="-o FILE names another") from error
    write_whole(fd, path, found.patch)
    return _told(arguments, found, f"{len(found.compared.changes)} changes in {path}: read it, then `git apply` it")


def write_whole(fd: int, path: Path, patch: bytes) -> None:
    """Write a patch into its new file, or take that away again: half a patch applies, too. Raises OSError."""
    try:
        with open(fd, "wb") as file:
            file.write(patch)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _apply(arguments: argparse.Namespace, found: Review) -> int:
    from bottle.starting import confirmed

    directory = State(home_root().resolve()).read(arguments.identity).cwd
    if not arguments.yes:
        for change in found.compared.changes:
            print(f"bottle: {change.kind:<8} {shown(change.path)}", file=sys.stderr)
        print(f"bottle: {len(found.compared.changes)} changes to {shown(directory)}", file=sys.stderr)
        if not confirmed("apply them?"):
            print("bottle: not applied", file=sys.stderr)
            return 1
    count = asyncio.run(_applied(directory, found))
    return _told(arguments, found, f"{count} changes applied to {shown(directory)}")


async def _applied(directory: str, found: Review) -> int:
    from opsexec.local import LocalExec

    async with LocalExec(capabilities=CapabilitySet.of(*applying.needs(directory))) as ex:
        return await applying.apply(ex, directory, found)


def _told(arguments: argparse.Namespace, found: Review, text: str) -> int:
    print(json.dumps({**summary(found), "done": text}) if arguments.json else text)
    return 0


async def _review(arguments: argparse.Namespace) -> Review:
    state = State(home_root().resolve())
    metadata = state.read(arguments.identity)
    directory = state.directory(metadata.identity)
    base = read_base(directory, metadata.identity, metadata.cwd)
    asked = [each.strip("/") for each in arguments.take]
    host = hosting.host_from(metadata.host)
    kept = str(directory) if host is None else hosting.state_on(host, metadata.identity)
    place = "/".join([kept, *GUEST_WORKSPACE])
    async with hosting.executor(host, CapabilitySet.of(*needs(place)), None, metadata.identity) as ex:
        found = await review(ex, place, base, asked)
    unknown = [each for each in asked if not any(_of(change.path, each) for change in found.compared.changes)]
    if unknown:
        raise NoSuchBottle(f"--take {unknown[0]}: no change there that can be taken", hint="`bottle diff` lists them")
    return found


def _of(path: str, asked: str) -> bool:
    return path == asked or path.startswith(f"{asked}/")


def show_patch(patch: bytes) -> None:
    """Print a patch as it is; to a terminal, only what can't steer it or hide. A line ends at a newline alone."""
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(patch)
        sys.stdout.buffer.flush()
        return
    for line in patch.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n"):
        print("\t".join(shown(part) for part in line.split("\t")))


def notes(found: Review) -> Iterator[str]:
    """Yield what to know beside the patch, a line each."""
    for path, why in found.compared.warnings:
        yield f"warning: {shown(path)}: {why}"
    rest = 0
    for each in found.compared.held:
        if _is_noise(each):
            rest += 1
            continue
        how = f" (--take {shown(each.path)} brings it)" if each.askable else ""
        yield f"held back: {shown(each.path)} ({each.kind}): {shown(each.why)}{how}"
    if rest:
        yield f"held back: {rest} more paths of .git: commits stay in the bottle, their files are in the patch"
    if found.compared.ignored:
        yield f"left out: {found.compared.ignored} new paths that .gitignore names"
    if not found.whole:
        yield "warning: the copy holds more than is listed: this is a part of what changed"
    if found.unreadable:
        yield f"warning: {found.unreadable} paths couldn't be read"


def _is_noise(held: Held) -> bool:
    parts = held.path.split("/")
    return parts[0] == ".git" and len(parts) > 1 and parts[1] not in DANGEROUS


def summary(found: Review) -> dict[str, Any]:
    """Return a review as JSON data."""
    compared = found.compared
    return {
        "changes": [{"path": change.path, "kind": change.kind} for change in compared.changes],
        "held": [{"path": h.path, "kind": h.kind, "why": h.why, "askable": h.askable} for h in compared.held],
        "warnings": [{"path": path, "why": why} for path, why in compared.warnings],
        "ignored": compared.ignored,
        "whole": found.whole,
        "unreadable": found.unreadable,
        "bytes": len(found.patch),
    }
