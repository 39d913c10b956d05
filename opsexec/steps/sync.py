"""Steps that copy trees between the caller and the host."""

from __future__ import annotations

from opsexec.capability import Requirement, clean_path
from opsexec.errors import BadStep
from opsexec.steps.base import Step


class Sync(Step, frozen=True, kw_only=True):
    """What push and pull share. rsync's rule holds: `src/` copies what is in it, `src` copies it by name into dest.

    `delete`: remove what the source lacks. `excludes`: rsync patterns. `bandwidth_bytes_s`: None = unlimited.
    """

    family = "sync"

    delete: bool = False
    excludes: tuple[str, ...] = ()
    bandwidth_bytes_s: int | None = None

    def _check(self, local: str, remote: str) -> None:
        clean_path(remote)
        if not local or "\0" in local:
            raise BadStep("the local path is empty or holds NUL")
        if self.bandwidth_bytes_s is not None and self.bandwidth_bytes_s < 1024:
            raise BadStep("bandwidth_bytes_s is under 1024", hint="rsync counts in KiB/s")
        given: object = self.excludes
        if isinstance(given, str):
            raise BadStep("excludes is one text, not a list of patterns", hint=f"give [{given[:40]!r}]")
        for pattern in self.excludes:
            if not pattern or "\0" in pattern or "\n" in pattern:
                raise BadStep(f"exclude pattern {pattern[:40]!r} is malformed")


class Push(Sync, frozen=True, tag="push"):
    """Copy the caller's `src` to the host's `dest`."""

    src: str
    dest: str

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(self.src, self.dest)

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("sync.push", clean_path(self.dest)),)


class Pull(Sync, frozen=True, tag="pull"):
    """Copy the host's `src` to the caller's `dest`."""

    mutates = False

    src: str
    dest: str

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(self.dest, self.src)

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("sync.pull", clean_path(self.src)),)
