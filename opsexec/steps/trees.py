"""The step that lists a whole tree with digests, so that two states of it can be compared."""

from __future__ import annotations

from opsexec.capability import Requirement, clean_path
from opsexec.errors import BadStep
from opsexec.far.exclude import Excludes
from opsexec.far.message import as_bytes
from opsexec.steps.base import Step


class ListTree(Step, frozen=True, kw_only=True, tag="list_tree"):
    """List a directory and all below it, no link followed; stdout is one JSON object a line, `value` says how it went.

    A line is `{"path", "kind", "mode", "size", "links"}`, with `target` of a link and `sha256` of a file, each where it
    could be had. `value` is `{exists, entries, cut, denied, unreadable}`. `excludes`: rsync patterns, left out with all
    below. `max_entries`: where it stops, saying so in `cut`, as it does at 256 MiB of lines and at a path of over 4096
    bytes. `max_file_bytes`, `max_bytes`: the largest file that is read for its digest, and how much is read in all.
    Entries outside the grants are counted, not shown.
    """

    family = "trees"
    mutates = False

    path: str
    excludes: tuple[str, ...] = ()
    max_entries: int = 200_000
    max_file_bytes: int = 64 << 20
    max_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        super().__post_init__()
        clean_path(self.path)
        if not 0 < self.max_entries <= 1_000_000 or self.max_file_bytes < 0 or self.max_bytes < 0:
            raise BadStep("max_entries is not between 1 and 1000000, or a limit is negative")
        try:
            Excludes(as_bytes(pattern) for pattern in self.excludes)
        except ValueError as error:
            raise BadStep(str(error), hint="rsync(1) PATTERN MATCHING RULES") from error

    def requires(self) -> tuple[Requirement, ...]:
        return (Requirement("fs.read", clean_path(self.path)),)
