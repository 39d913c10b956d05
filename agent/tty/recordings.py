"""The recordings of one agent: `state_dir/recordings/<run>.cast`, whose they are, and how many are kept."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from agent.keeping import Kept, surplus
from agent.tty.tape import Tape
from opsexec.errors import RecordingFailed, UsageError
from opsexec.recording import parse_header
from opsexec.wire import is_run_id

if TYPE_CHECKING:
    from opsexec.hosts.port import ProcessSpec

SUFFIX = ".cast"
_BY = "principal:"
_MAX_HEADER = 1 << 20


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A recording that is kept. `overseers`: those who were asked whether it may begin."""

    run: str
    principal: str
    overseers: frozenset[str]
    title: str
    begun: float
    size: int


class Recordings:
    """The directory. It is the agent's user's alone (0700), and so is every file in it (0600)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, run: str) -> Path:
        """Return where a run's recording is."""
        assert is_run_id(run)
        return self._directory / f"{run}{SUFFIX}"

    def create(
        self,
        run: str,
        spec: ProcessSpec,
        *,
        principal: str,
        overseers: Collection[str],
        title: str,
        term: str,
        size: tuple[int, int],
        max_bytes: int,
    ) -> Tape:
        """Make a recording; raises RecordingFailed."""
        tags = [f"run:{run}", f"{_BY}{principal}", *(f"overseer:{each}" for each in sorted(overseers))]
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(self._marker(run), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            tape = Tape.create(
                self.path(run),
                columns=size[0],
                rows=size[1],
                term=term,
                title=title,
                command=shlex.join(spec.argv),
                tags=tags,
            )
        except (OSError, UsageError) as error:
            text = f"the terminal's recording can't be made on the host: {error}"
            raise RecordingFailed(text, hint="no recording, no terminal: look at the agent's state_dir") from error
        tape.chain_to(run, max_bytes)
        return tape

    def find(self, run: str) -> Recorded | None:
        """Return what is known of a run's recording; None when there is none."""
        path = self.path(run)
        try:
            with path.open("rb") as stream:
                header = parse_header(stream.readline(_MAX_HEADER))
                status = os.fstat(stream.fileno())
        except OSError:
            return None
        if header is None or f"run:{run}" not in header.tags:
            return None
        by = next((tag.removeprefix(_BY) for tag in header.tags if tag.startswith(_BY)), "")
        asked = frozenset(tag.removeprefix("overseer:") for tag in header.tags if tag.startswith("overseer:"))
        return Recorded(
            run=run,
            principal=by,
            overseers=asked,
            title=header.title,
            begun=status.st_mtime if header.timestamp is None else header.timestamp,
            size=status.st_size,
        )

    def all(self) -> list[Recorded]:
        """Return every recording, the newest first."""
        found = (self.find(name.removesuffix(SUFFIX)) for name in self._names())
        return sorted((each for each in found if each is not None), key=lambda each: -each.begun)

    def _names(self) -> list[str]:
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return [name for name in names if name.endswith(SUFFIX) and is_run_id(name.removesuffix(SUFFIX))]

    def surplus(self, keep: int, keep_bytes: int, but: Collection[str]) -> list[str]:
        """Return the runs whose recordings go, beyond `keep` of them and `keep_bytes`, never those of `but`."""
        kept = [Kept(each.run, each.principal, each.size) for each in self.all() if each.run not in but]
        return surplus(kept, keep, keep_bytes)

    def _marker(self, run: str) -> Path:
        """Return the file that stands for as long as a terminal is open."""
        return self._directory / f"{run}.open"

    def finished(self, run: str) -> None:
        """Note that a terminal's end is in the audit."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # it never had one, or the directory went
            self._marker(run).unlink()

    def unfinished(self) -> list[str]:
        """Return the runs whose terminal's end is not in the audit."""
        try:
            names = os.listdir(self._directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = [name.removesuffix(".open") for name in names if name.endswith(".open")]
        return sorted(run for run in found if is_run_id(run))

    def remove(self, run: str) -> None:
        """Remove a recording; one that isn't there is fine."""
        with contextlib.suppress(FileNotFoundError):  # it is gone as asked
            self.path(run).unlink()


def shown(recorded: Recorded, live: bool) -> dict[str, Any]:
    """Return a recording as a list of them shows it."""
    return {
        "run": recorded.run,
        "principal": recorded.principal,
        "title": recorded.title,
        "begun": recorded.begun,
        "bytes": recorded.size,
        "live": live,
    }
