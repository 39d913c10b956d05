"""The agent's image while it is built: that it takes a while is told once, and what the build says is in the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bottle.bundle_output import MAX_LINE, BundleOutput
from bottle.preflight import shown
from opsexec.errors import StepFailed
from opsexec.executor import Executor, Stream
from opsexec.steps import Step

SOURCE = "image"
"""What the log calls it, beside the daemons."""


async def built(ex: Executor, steps: Sequence[Step], said: BundleOutput, say: Callable[[str], None]) -> None:
    """Have the image built, where it isn't there; raises StepFailed with a hint at what the build said."""
    output = _BuildOutput(said, say)
    try:
        for step in steps:
            await ex.run(step, output)
    except StepFailed as error:
        if output.spoke and error.hint is None:
            hint = f"`bottle logs {said.identity} {SOURCE}` shows why"
            raise StepFailed(error.message, host=error.host, hint=hint) from error
        raise
    finally:
        output.end()


class _BuildOutput:
    """A sink for a build: silent where the image is there already. `spoke`: the build has said a word."""

    def __init__(self, said: BundleOutput, say: Callable[[str], None]) -> None:
        self._said, self._say = said, say
        self._rest = b""
        self.spoke = False

    async def write(self, stream: Stream, data: bytes) -> None:
        """Take a block."""
        if not self.spoke:
            self.spoke = True
            self._say(
                f"the agent's image is built, once: `bottle logs {self._said.identity} {SOURCE}` shows how it goes"
            )
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-MAX_LINE:]
        for line in lines:
            self._note(line)

    def end(self) -> None:
        """Take what has no end of line."""
        if self._rest:
            self._note(self._rest)

    def _note(self, line: bytes) -> None:
        self._said.note(f"{SOURCE} | {shown(line.decode('utf-8', 'replace').rstrip())}\n")
