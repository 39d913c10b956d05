"""Race-free path resolution under grants: the one way file operations reach a path on the host.

The path is walked from `/` by directory descriptors, each symbolic link read and followed by hand, so that
the place an operation acts on is a directory held open plus one last name. Swapping a link or directory on
the way can't move it. The requested path and the place it leads to must both be admitted: a link can't leave
its grant. What no walk can tell is a hard link or a bind mount in the grant whose other name is outside it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from errno import EINVAL, ELOOP, ENOENT, ENOTDIR

from opsexec.far.match import admits_path, normalise
from opsexec.far.message import FarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_LINKS = 40
"""How many links one walk follows: Linux's own limit, path_resolution(7)."""

MAX_NAMES = 8192
"""How many names one walk takes, links included: what 40 links of 4095 bytes could ask for is cut here."""

SEARCH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Open a directory to walk through it: O_PATH needs only the search permission (absent outside Linux)."""


class Place:
    """Where an operation acts: `name` in the open directory `fd`; `path` is that place without links.

    `missing`: in check mode, the directories that would have to be made first; `fd` is -1 then.
    """

    __slots__ = ("asked", "fd", "made", "missing", "name", "path")

    def __init__(self, asked: str, fd: int, name: bytes, path: str, made: list[str], missing: list[str]) -> None:
        self.asked = asked
        self.fd = fd
        self.name = name
        self.path = path
        self.made = made
        self.missing = missing

    def stat(self) -> os.stat_result | None:
        """Return the metadata of what stands here, not following a link; None when nothing does."""
        if self.fd < 0:
            return None
        try:
            return os.stat(self.name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None


def encode(text: str) -> bytes:
    """Return a path as the bytes it has on disk, whatever the locale of this process is."""
    return text.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> str:
    """Return path bytes as text that `encode` turns back into the same bytes."""
    return data.decode("utf-8", "surrogateescape")


def denial(verb: str, path: str, layers: Sequence[Sequence[str]], why: str) -> FarError:
    """Return the error of a path that no grant admits; its details are the need and then what was held."""
    held = [" | ".join(f"{verb}:{pattern}" for pattern in layer) or "nothing" for layer in layers]
    if len(layers) == 1:
        held = [f"{verb}:{pattern}" for pattern in layers[0]]
    return FarError("denied", why, f"{verb}:{path}", *held)


class Walk:
    """One resolution of one path. `verb` names the grant in errors.

    `follow`: a link that stands at the last name is followed too. `parents`: "" = a missing directory is an
    error, "make" = make it (0755), "pretend" = answer a Place that lists it in `missing`.
    """

    def __init__(
        self, path: str, layers: Sequence[Sequence[str]], verb: str, *, follow: bool = True, parents: str = ""
    ) -> None:
        try:
            self.asked = normalise(path)
        except ValueError as error:
            raise FarError("bad_path", f"{path[:80]!r}: {error}") from error
        self.layers = layers
        self.verb = verb
        self.follow = follow
        self.parents = parents
        self.fd = -1
        self.todo: list[str] = []
        self.resolved: list[str] = []
        self.made: list[str] = []
        self.missing: list[str] = []

    def run(self) -> Place:
        """Walk; the caller closes `Place.fd`. Raises FarError, or OSError about a place the grants admit."""
        self.require(self.asked)
        self.todo = self.asked.split("/")[:0:-1]
        try:
            self._restart()
            self._descend()
        except BaseException:  # whatever it is, the walk holds no directory open
            self._move(-1)
            raise
        name = self.resolved[-1] if self.resolved else "."
        return Place(self.asked, self.fd, encode(name), self._here(), self.made, self.missing)

    def require(self, path: str) -> None:
        """Raise `denied` unless the grants admit this path, which has no link on its way."""
        if not admits_path(self.layers, path):
            why = "not granted" if path == self.asked else f"{self.asked} leads to {path}"
            raise denial(self.verb, path, self.layers, why)

    def _here(self, *more: str) -> str:
        return "/" + "/".join((*self.resolved, *more))

    def _move(self, fd: int) -> None:
        """Hold `fd` instead of the present directory."""
        old, self.fd = self.fd, fd
        if old >= 0:
            os.close(old)

    def _restart(self) -> None:
        """Go back to `/`: nothing is ever reached through the kernel's own `..`."""
        self.resolved.clear()
        self.missing.clear()
        self._move(os.open(b"/", SEARCH))

    def _descend(self) -> None:
        """Walk until `fd` is the directory that holds the last name, which `resolved` then ends in."""
        links = names = 0
        while self.todo:
            names += 1
            if names > MAX_NAMES:
                raise FarError("loop", f"{self.asked} takes over {MAX_NAMES} names to resolve")
            name = self.todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                self.todo.extend(reversed(self.resolved[:-1]))
                self._restart()
                continue
            last = not any(part not in ("", ".") for part in self.todo)
            target = None if last and not self.follow else self._target(name)
            if target is not None:
                links += 1
                if links > MAX_LINKS:
                    raise FarError("loop", f"{self.asked} goes through over {MAX_LINKS} links")
                self.todo.extend(reversed(target.split("/")))
                if target.startswith("/"):
                    self._restart()
                continue
            self.resolved.append(name)
            if last:
                self.require(self._here())
                return
            self._enter()
        # Only `/`, or a link that ends in `.` or `..`, comes here: the place is the directory walked into.
        self._step_out()

    def _step_out(self) -> None:
        """From inside a directory, go to the one that holds it."""
        self.require(self._here())
        names = self.resolved[:]
        self._restart()
        for name in names[:-1]:
            self.resolved.append(name)
            self._enter()
        self.resolved.extend(names[-1:])

    def _target(self, name: str) -> str | None:
        """Return what the link `name` holds; None when it isn't a link."""
        if self.fd < 0:
            return None
        try:
            return decode(os.readlink(encode(name), dir_fd=self.fd))
        except OSError as error:
            if error.errno in (EINVAL, ENOENT):
                return None
            self._refuse_to_tell(name)
            raise

    def _enter(self) -> None:
        """Walk into the directory that `resolved` now ends in."""
        name = encode(self.resolved[-1])
        if self.fd < 0:
            self._pretend()
            return
        try:
            self._move(os.open(name, SEARCH, dir_fd=self.fd))
        except OSError as error:
            self._refuse_to_tell()
            if error.errno == ENOENT and self.parents:
                self._make(name)
            elif error.errno in (ENOTDIR, ELOOP):
                raise self._not_a_directory(name) from error
            else:
                raise

    def _not_a_directory(self, name: bytes) -> FarError:
        try:
            os.readlink(name, dir_fd=self.fd)
        except OSError:
            return FarError("not_directory", f"{self._here()} is not a directory")
        return FarError("raced", f"{self._here()} became a link while it was walked")

    def _refuse_to_tell(self, *name: str) -> None:
        """Deny, rather than say what is wrong on the way to a place outside the grants."""
        self.require(normalise(self._here(*name, *reversed(self.todo))))

    def _make(self, name: bytes) -> None:
        """Make the directory that `resolved` ends in, when the grants admit that too, and walk into it."""
        if ".." in self.todo:
            raise FarError("not_found", f"{self.asked} goes through {self._here()}, which doesn't exist")
        if self.parents == "pretend":
            self._pretend()
            self._move(-1)
            return
        self.require(self._here())
        try:
            os.mkdir(name, 0o755, dir_fd=self.fd)
        except FileExistsError as error:
            raise FarError("raced", f"{self._here()} appeared while it was made") from error
        self.made.append(self._here())
        self._move(os.open(name, SEARCH, dir_fd=self.fd))

    def _pretend(self) -> None:
        self.require(self._here())
        self.missing.append(self._here())


TRIES = 64
"""How often a walk is begun again when what it walks keeps changing under it."""


@contextmanager
def located(
    path: str, layers: Sequence[Sequence[str]], verb: str, *, follow: bool = True, parents: str = ""
) -> Iterator[Place]:
    """The Place of a path under the grants of `verb`, held open for the block. Raises FarError, OSError."""
    place = None
    for left in range(TRIES, 0, -1):
        try:
            place = Walk(path, layers, verb, follow=follow, parents=parents).run()
            break
        except FarError as error:
            if error.code != "raced" or left == 1:
                raise
    assert place is not None
    try:
        yield place
    finally:
        if place.fd >= 0:
            os.close(place.fd)
