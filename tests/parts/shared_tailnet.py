"""A tailnet whose control server shares nodes with another one: a host with a TUN device, and a guest.

headscale can't share nodes, so the server is Tailscale's own test control server (scripts/tailnet/sharing); the nodes
are real tailscaleds, and what they say of each other is what they made of what a control server told them.
"""

from __future__ import annotations

import select
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.parts.netns import Namespaces
from tests.parts.tailscaled import Tailscaled
from tests.parts.waiting import eventually_now

ADDRESS = "10.231.0.1:8080"
ANSWER_S = 30.0


class SharedTailnet:
    """`with` starts and ends it."""

    def __init__(self, programs: Path) -> None:
        self._held = tempfile.TemporaryDirectory(prefix="shared-tailnet-")
        self._programs = programs
        directory = Path(self._held.name)
        directory.chmod(0o711)
        self._namespaces = Namespaces(2)
        self._control: subprocess.Popen[str] | None = None
        self.host = Tailscaled(programs, directory, "host", self._namespaces.name(0), kernel=True)
        self.guest = Tailscaled(programs, directory, "guest", self._namespaces.name(1), kernel=False)

    def __enter__(self) -> Self:
        try:
            self._namespaces.__enter__()
            argv = Namespaces.inside(self._namespaces.hub, [str(self._programs / "sharing"), ADDRESS])
            self._control = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
            assert self._answer() == "serving"
            for node in (self.host, self.guest):
                node.start()
                node.up("any")
            eventually_now(lambda: self.guest.reaches("host"), within_s=40, what="the guest reaches the host")
        except BaseException:
            self.end()
            raise
        return self

    def see_guest(self, seen_as: Literal["own", "sharer", "sharee"]) -> None:
        """Have the host told otherwise about the guest: shared in, of a tailnet it is shared with, or neither."""
        assert self._control is not None
        assert self._control.stdin is not None
        self._control.stdin.write(f"host guest {seen_as}\n")
        self._control.stdin.flush()
        said = self._answer()
        assert said == "told", said

    def _answer(self) -> str:
        assert self._control is not None
        assert self._control.stdout is not None
        ready, _, _ = select.select([self._control.stdout], [], [], ANSWER_S)
        assert ready, "the control server says nothing"
        return self._control.stdout.readline().strip()

    def end(self) -> None:
        """End all of it."""
        self.guest.end()
        self.host.end()
        if self._control is not None:
            self._control.kill()
            self._control.communicate(timeout=10)
        self._namespaces.__exit__(None, None, None)
        self._held.cleanup()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
