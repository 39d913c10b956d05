"""File steps: each is one operation of `opsexec.far.operations`, with the grants that admit it beside it."""

from __future__ import annotations

from opsexec.capability import Requirement, clean_path
from opsexec.errors import BadStep
from opsexec.far.message import pack_layers
from opsexec.handlers.context import Context, Outcome
from opsexec.handlers.diffs import attribute_lines, content_diff, made_lines, shown
from opsexec.handlers.far_answers import (
    Contents,
    Entry,
    Linked,
    Made,
    Moved,
    Removed,
    Settled,
    Written,
    answered,
    decoded,
    shaped,
)
from opsexec.handlers.limits import call, give
from opsexec.secret import Secret
from opsexec.steps.base import Step
from opsexec.steps.files import Link, MakeDir, MoveFile, ReadFile, RemoveFile, SetMode, Stat, WriteFile


async def handle(step: Step, context: Context) -> Outcome:
    """Do one file step on the host."""
    match step:
        case ReadFile():
            return await _read(step, context)
        case Stat():
            return await _stat(step, context)
        case WriteFile():
            return await _write(step, context)
        case RemoveFile():
            return await _remove(step, context)
        case MoveFile():
            return await _move(step, context)
        case MakeDir():
            return await _make_dir(step, context)
        case Link():
            return await _link(step, context)
        case SetMode():
            return await _set_mode(step, context)
        case _:
            raise BadStep(f"{type(step).__name__} is no file step")


def _place(path: str, verb: str, context: Context) -> tuple[bytes, bytes]:
    """Return the path and the grants of its verb, as every file operation takes them."""
    return _bytes(clean_path(path)), pack_layers(context.capabilities.path_layers(verb))


def _bytes(text: str | None) -> bytes:
    return b"" if text is None else text.encode("utf-8", "surrogateescape")


def _flag(value: bool) -> bytes:
    return b"1" if value else b"0"


def _finished(changed: bytes, context: Context, diff: str = "") -> Outcome:
    return Outcome(changed=changed == b"1", diff=diff if context.diff and changed == b"1" else None)


async def _read(step: ReadFile, context: Context) -> Outcome:
    args = [*_place(step.path, "fs.read", context), b"%d" % step.offset, b"%d" % step.max_bytes]
    data, meta = await call("read_file", args, step.run_as, context, items=2)
    value = decoded(meta, context)
    shaped(value, Contents, context)
    await give(0, data, context)
    return Outcome(value=value)


async def _stat(step: Stat, context: Context) -> Outcome:
    (answer,) = await call("stat", [*_place(step.path, "fs.read", context), b"1"], step.run_as, context, items=1)
    value = decoded(answer, context)
    shaped(value, Entry, context)
    return Outcome(value=value)


async def _write(step: WriteFile, context: Context) -> Outcome:
    path = clean_path(step.path)
    tell = context.diff and not isinstance(step.content, Secret) and _may_read(path, context)
    readers = pack_layers(context.capabilities.path_layers("fs.read")) if tell else b""
    attributes = [_bytes(step.mode), _bytes(step.owner), _bytes(step.group)]
    flags = [_flag(step.parents), _flag(context.check)]
    private = _flag(isinstance(step.content, Secret))
    args = [*_place(path, "fs.write", context), step.body, *attributes, *flags, readers, private]
    changed, old, meta = await call("write_file", args, step.run_as, context, items=3)
    if not context.diff:
        return _finished(changed, context)
    return _finished(changed, context, _write_diff(step, old, answered(meta, Written, context)))


def _may_read(path: str, context: Context) -> bool:
    """A diff shows the old content, so it takes fs.read: fs.write alone never tells what a file held."""
    return context.capabilities.admits(Requirement("fs.read", path))


def _write_diff(step: WriteFile, old: bytes, meta: Written) -> str:
    lines = made_lines(meta.made)
    if meta.content:
        if isinstance(step.content, Secret):
            lines += "(secret content differs)\n"
        elif meta.old_known:
            lines += content_diff(meta.path, old if meta.existed else None, step.body)
        else:
            lines += f"(content differs: {meta.old_size} -> {len(step.body)} bytes)\n"
    return lines + attribute_lines(meta.changes)


async def _remove(step: RemoveFile, context: Context) -> Outcome:
    args = [*_place(step.path, "fs.remove", context), _flag(step.recursive), _flag(context.check)]
    changed, meta = await call("remove", args, step.run_as, context, items=2)
    found = answered(meta, Removed, context)
    return _finished(changed, context, f"{shown(found.kind or '')} {shown(found.path or '')} removed\n")


async def _move(step: MoveFile, context: Context) -> Outcome:
    readers = pack_layers(context.capabilities.path_layers("fs.read"))
    to = _place(step.to, "fs.write", context)
    args = [*_place(step.path, "fs.remove", context), readers, *to, _flag(context.check)]
    changed, meta = await call("move_file", args, step.run_as, context, items=2)
    found = answered(meta, Moved, context)
    return _finished(changed, context, f"{shown(found.kind or '')} {shown(found.path or '')} -> {shown(found.to)}\n")


async def _make_dir(step: MakeDir, context: Context) -> Outcome:
    attributes = [_bytes(step.mode), _bytes(step.owner), _bytes(step.group)]
    flags = [_flag(step.parents), _flag(context.check)]
    args = [*_place(step.path, "fs.write", context), *attributes, *flags]
    changed, meta = await call("make_dir", args, step.run_as, context, items=2)
    found = answered(meta, Made, context)
    return _finished(changed, context, made_lines(found.made) + attribute_lines(found.changes))


async def _link(step: Link, context: Context) -> Outcome:
    args = [*_place(step.path, "fs.write", context), _bytes(step.target), _flag(context.check)]
    changed, meta = await call("link", args, step.run_as, context, items=2)
    before, after = answered(meta, Linked, context).target
    return _finished(changed, context, attribute_lines({"target": [before or "(none)", after]}))


async def _set_mode(step: SetMode, context: Context) -> Outcome:
    attributes = [_bytes(step.mode), _bytes(step.owner), _bytes(step.group)]
    args = [*_place(step.path, "fs.write", context), *attributes, _flag(context.check)]
    changed, meta = await call("set_mode", args, step.run_as, context, items=2)
    return _finished(changed, context, attribute_lines(answered(meta, Settled, context).changes))
