"""Steps that copy files into and out of a container."""

from __future__ import annotations

import re

import msgspec

from opsexec.capability import Requirement
from opsexec.errors import BadStep
from opsexec.secret import Secret
from opsexec.steps.container_shape import bind_path
from opsexec.steps.containers import Labelled

MAX_BYTES = 8 << 30
MAX_ENTRIES = 2_000_000
_MODE = re.compile(r"[0-7]{3,4}\Z")


class GivenFile(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One file that stands in the step itself: its path below where it is put, its content and its mode in octal.

    Bytes that are no UTF-8 stand in `content` as in every text of a step (`surrogateescape`)."""

    path: str
    content: str | Secret = ""
    mode: str = "0644"


class ContainerCopyIn(Labelled, frozen=True, tag="container_copy_in"):
    """Put files below a directory of a container: those in the step, and a tar stream when one is given as input.

    `uid`, `gid`: who owns them. Entries that are absolute, climb out, or are neither file, directory nor link are
    refused, as is more than `max_bytes` or `max_entries`. A directory in memory can't be reached like this, and a
    container whose root is read-only takes files in its volumes alone (docs/containers.md).
    """

    dest: str
    files: tuple[GivenFile, ...] = ()
    uid: int = 1000
    gid: int = 1000
    max_bytes: int = 1 << 30
    max_entries: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        bind_path(self.dest)
        checked_files(self.files)
        bounded(self.max_bytes, self.max_entries)
        if not 0 <= self.uid < 1 << 31 or not 0 <= self.gid < 1 << 31:
            raise BadStep("uid or gid is out of range")

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("container.copy", self.name),)


class ContainerCopyOut(Labelled, frozen=True, tag="container_copy_out"):
    """Read a file or tree of a container as a tar stream on stdout, its entries named below the last part of `path`.

    Entries that are absolute, climb out or are no file, directory or link end it, and more than `max_bytes` or
    `max_entries`: what arrives can be unpacked as it is. `value` is `{entries, bytes}`.
    """

    mutates = False

    path: str
    max_bytes: int = 1 << 30
    max_entries: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        bind_path(self.path)
        bounded(self.max_bytes, self.max_entries)

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("container.copy", self.name),)


def checked_files(files: tuple[GivenFile, ...]) -> None:
    """Raise BadStep unless each file has a path of its own below where it is put, and a mode without setuid bits."""
    seen = set()
    for file in files:
        parts = file.path.split("/")
        if not all(parts) or {".", ".."} & set(parts) or not file.path.isprintable():
            raise BadStep(f"{file.path[:80]!r} is no path below a directory", hint="like etc/app.toml")
        if not _MODE.match(file.mode) or int(file.mode, 8) & 0o7000:
            raise BadStep(f"mode {file.mode[:20]!r} of {file.path} is not three octal digits")
        if file.path in seen:
            raise BadStep(f"{file.path} is given twice")
        seen.add(file.path)


def bounded(max_bytes: int, max_entries: int) -> None:
    """Raise BadStep unless a copy's limits are limits."""
    if not 0 < max_bytes <= MAX_BYTES or not 0 < max_entries <= MAX_ENTRIES:
        raise BadStep(f"max_bytes is not from 1 to {MAX_BYTES}, or max_entries not from 1 to {MAX_ENTRIES}")
