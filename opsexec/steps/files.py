"""Steps on files of the host: read, stat, write, remove, mkdir, link, mode and owner. All paths are absolute."""

from __future__ import annotations

import re

from opsexec.capability import Requirement, clean_path
from opsexec.errors import BadStep
from opsexec.secret import Secret, reveal
from opsexec.steps.base import Step
from opsexec.steps.text import as_bytes

MAX_READ_BYTES = 64 << 20
"""The most that one ReadFile holds in memory, on the host and on the way, whatever its caller asks for."""

_MODE = re.compile(r"0?[0-7]{3,4}\Z")
_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\Z")


class FileStep(Step, frozen=True, kw_only=True):
    """The shared half: one path, normalised before it is matched and before it is sent."""

    family = "files"

    def _need(self, verb: str, path: str) -> tuple[Requirement, ...]:
        return (Requirement(verb, clean_path(path)),)


def check_attributes(mode: str | None, owner: str | None, group: str | None) -> None:
    """Raise BadStep unless mode is octal text like "0644" and owner and group are names or numbers."""
    given: object = mode
    if given is not None and not (isinstance(given, str) and _MODE.match(given)):
        raise BadStep(f"mode {mode!r} is not octal", hint='write it as text, like "0644"')
    for name in (owner, group):
        if name is not None and not _OWNER.match(name):
            raise BadStep(f"owner or group {name[:40]!r} is malformed")


class ReadFile(FileStep, frozen=True, tag="read_file"):
    """Read a file; its bytes are the step's stdout. `offset` and `max_bytes` in bytes; a longer file is an error.

    It is read as a whole before any of it is passed on: `max_bytes` is at most MAX_READ_BYTES.
    """

    mutates = False

    path: str
    offset: int = 0
    max_bytes: int = 8 << 20

    def __post_init__(self) -> None:
        super().__post_init__()
        clean_path(self.path)
        if not 0 <= self.offset < 1 << 63 or not 0 < self.max_bytes <= MAX_READ_BYTES:
            text = f"offset is negative, or max_bytes is not from 1 to {MAX_READ_BYTES}"
            raise BadStep(text, hint="Pull what is larger, or read its end (offset)")

    def requires(self) -> tuple[Requirement, ...]:
        return self._need("fs.read", self.path)


class Stat(FileStep, frozen=True, tag="stat"):
    """Read a path's metadata without following a final link; a missing path is an answer (`exists: false`)."""

    mutates = False

    path: str

    def __post_init__(self) -> None:
        super().__post_init__()
        clean_path(self.path)

    def requires(self) -> tuple[Requirement, ...]:
        return self._need("fs.read", self.path)


class WriteFile(FileStep, frozen=True, tag="write_file"):
    """Make a file hold exactly this content, atomically (a temporary beside it, fsync, rename).

    Give `content` (text or Secret) or `data` (bytes). mode/owner/group None = keep;
    a new file then gets 0644 minus umask, and 0600 when its content is a Secret.
    `parents`: create missing directories (0755).
    """

    path: str
    content: str | Secret | None = None
    data: bytes | None = None
    mode: str | None = None
    owner: str | None = None
    group: str | None = None
    parents: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        clean_path(self.path)
        check_attributes(self.mode, self.owner, self.group)
        if (self.content is None) == (self.data is None):
            raise BadStep("give exactly one of content and data", hint="content is text, data is bytes")
        if not isinstance(self.content, (str, Secret, type(None))):
            raise BadStep("content is no text", hint="bytes go into data")

    @property
    def body(self) -> bytes:
        """The bytes to write, revealed."""
        if self.data is not None:
            return self.data
        assert self.content is not None
        return as_bytes(reveal(self.content))

    def requires(self) -> tuple[Requirement, ...]:
        return self._need("fs.write", self.path)


class RemoveFile(FileStep, frozen=True, tag="remove_file"):
    """Remove a file, link or empty directory; `recursive` removes a tree without ever following a link."""

    path: str
    recursive: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if clean_path(self.path) == "/":
            raise BadStep("refusing to remove /")

    def requires(self) -> tuple[Requirement, ...]:
        return self._need("fs.remove", self.path)


class MoveFile(FileStep, frozen=True, tag="move_file"):
    """Move a file or link, with all that belongs to it, to a place that is free; nothing is ever replaced.

    In one rename where both places are on one file system, else as a copy that is flushed before the original goes.
    A missing `path` beside something at `to` was moved already.
    """

    path: str
    to: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if clean_path(self.path) == clean_path(self.to):
            raise BadStep("path and to are one place")

    def requires(self) -> tuple[Requirement, ...]:
        # Its content stands under the grants of the new place then, so those of the old one have to admit reading it.
        return (
            *self._need("fs.read", self.path), *self._need("fs.remove", self.path), *self._need("fs.write", self.to)
        )  # fmt: skip


class MakeDir(FileStep, frozen=True, tag="make_dir"):
    """Make a directory exist, with missing parents (0755) when `parents`."""

    path: str
    mode: str | None = None
    owner: str | None = None
    group: str | None = None
    parents: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        clean_path(self.path)
        check_attributes(self.mode, self.owner, self.group)

    def requires(self) -> tuple[Requirement, ...]:
        return self._need("fs.write", self.path)


class Link(FileStep, frozen=True, tag="link"):
    """Make `path` a symbolic link to `target` (any text a link may hold); replaces a link, never a file."""

    path: str
    target: str

    def __post_init__(self) -> None:
        super().__post_init__()
        clean_path(self.path)
        if not self.target or "\0" in self.target or len(self.target) > 4095:
            raise BadStep("link target is empty, too long or holds NUL")

    def requires(self) -> tuple[Requirement, ...]:
        return self._need("fs.write", self.path)


class SetMode(FileStep, frozen=True, tag="set_mode"):
    """Set the mode (octal text), owner or group of one existing path, not following a final link."""

    path: str
    mode: str | None = None
    owner: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        clean_path(self.path)
        check_attributes(self.mode, self.owner, self.group)
        if self.mode is None and self.owner is None and self.group is None:
            raise BadStep("nothing to set", hint="give mode, owner or group")

    def requires(self) -> tuple[Requirement, ...]:
        return self._need("fs.write", self.path)
