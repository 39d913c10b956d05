"""A probe that sees a host as it would be after an install: files that only wait to be put there, and their modes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.services.artifact import Artifact
from agent.services.probe import FileText, Probe, Said, Unreadable
from opsexec.handlers.far_answers import Entry

if TYPE_CHECKING:
    from opsexec.executor import Executor

NOT_THERE_YET = "LoadState=not-found\nActiveState=inactive\nSubState=dead\n"


class OverlayProbe(Probe):
    """Reads `artifacts` as if they stood in their places, everything else from the host.

    `staged`: the directory where they wait on the host; without one, a program that would have to read one
    can't be asked, which is `unknown`.
    """

    def __init__(
        self,
        executor: Executor,
        artifacts: Sequence[Artifact],
        unit: str,
        *,
        owner: tuple[str, int],
        staged: str | None = None,
        run_as: str | None = None,
    ) -> None:
        super().__init__(executor, run_as=run_as)
        self._artifacts = {each.path: each for each in artifacts}
        self._unit = unit
        self._owner = owner
        self._staged = staged

    def staged_path(self, path: str) -> str | None:
        """Return where an artifact waits on the host; None when it doesn't."""
        return None if self._staged is None else f"{self._staged}/{path.rpartition('/')[2]}"

    async def read(self, path: str, *, max_bytes: int = 1 << 20) -> FileText:
        """Return an artifact's content, or a file of the host's."""
        found = self._artifacts.get(path)
        if found is None:
            return await super().read(path, max_bytes=max_bytes)
        return FileText(path, path, found.data, found.mode)

    async def stat(self, path: str) -> Entry:
        """Return an artifact's metadata, or what the host says of a path."""
        found = self._artifacts.get(path)
        if found is None:
            return await super().stat(path)
        name, uid = self._owner
        return Entry(
            exists=True, kind="file", size=len(found.data), mode=found.mode, owner=name, group=name, uid=uid, gid=uid,
            path=path, sha256=hashlib.sha256(found.data).hexdigest(),
        )  # fmt: skip

    async def ask(
        self,
        question: str,
        subject: str = "",
        *,
        number: int | None = None,
        user: bool = False,
        connection: str | None = None,
        again: int = 0,
    ) -> Said:
        """Ask about the file where it waits; the manager's word on the unit is of the old one, and left out."""
        if question == "systemd.unit" and subject == self._unit:
            return Said(f"systemctl show {subject} (before its install)", 0, NOT_THERE_YET, "")
        if subject in self._artifacts:
            waiting = self.staged_path(subject)
            if waiting is None:
                raise Unreadable(f"{subject} isn't on the host yet: `ops-agent stage` puts it where it can be read")
            said = await super().ask(question, waiting, number=number, user=user, connection=connection, again=again)
            return self._about(question, said, waiting, subject)
        return await super().ask(question, subject, number=number, user=user, connection=connection, again=again)

    def _about(self, question: str, said: Said, waiting: str, subject: str) -> Said:
        """Return an answer as if the file stood in its place, where the programs it names stand too."""
        lines = said.err.replace(waiting, subject).splitlines(keepends=True)
        if question != "systemd.verify":
            return Said(said.cmd, said.rc, said.out, "".join(lines))
        missing = tuple(f"Command {path} is not executable" for path in self._artifacts)
        kept = [line for line in lines if not any(each in line for each in missing)]
        rc = 0 if lines and not any(line.strip() for line in kept) else said.rc
        return Said(said.cmd, rc, said.out, "".join(kept))
