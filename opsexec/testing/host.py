"""`FakeHost`: the Host port without a machine behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from opsexec.errors import CapabilityDenied, LimitExceeded, OpsError, ProgramNotFound, StepTimeout
from opsexec.executor import RunOutput
from opsexec.far.message import FarError
from opsexec.hosts.answers import as_error
from opsexec.hosts.port import ProcessExit, ProcessSpec, SyncPlan, SyncResult
from opsexec.recorder import Recorder
from opsexec.testing.answers import Answer, Script
from opsexec.testing.tree import FakeNode, FakeTree


class FakeHost:
    """A host in memory. `calls` lists what was asked of it, in order, like ["write_file", "/etc/motd"].

    `files`: content by path; `dirs`: empty directories. `answers`: what programs say, see `Script`. `facts`:
    by fact name. `samples`: what `observe` answers, one a sample, the last again and again. `syncs`: the
    itemised changes of a copy by remote path. `failures`: an error by operation name that ends such calls.
    """

    def __init__(
        self,
        name: str = "fake",
        *,
        files: Mapping[str, bytes | str | FakeNode] | None = None,
        dirs: Iterable[str] = (),
        answers: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
        samples: Sequence[Mapping[str, Any]] = ({},),
        syncs: Mapping[str, Sequence[str]] | None = None,
        failures: Mapping[str, OpsError] | None = None,
    ) -> None:
        self._name = name
        self.tree = FakeTree(files, dirs)
        self.calls: list[list[str]] = []
        self.specs: list[ProcessSpec] = []
        self.plans: list[SyncPlan] = []
        self.received: list[bytes] = []
        self.closed = False
        self._script = Script(answers or {})
        self._facts = dict(facts or {})
        self._samples = [dict(sample) for sample in samples]
        self._syncs = {path: tuple(changes) for path, changes in (syncs or {}).items()}
        self._failures = dict(failures or {})

    @property
    def name(self) -> str:
        """How errors name it."""
        return self._name

    def content(self, path: str) -> bytes | None:
        """Return a file's content; None when there is no such file."""
        node = self.tree.nodes.get(path)
        return None if node is None or node.kind != "file" else node.data

    async def run_process(
        self, spec: ProcessSpec, recorder: Recorder, stdin: AsyncIterator[bytes] | None = None
    ) -> ProcessExit:
        """Answer as scripted. What the program got on stdin is added to `received`."""
        self.specs.append(spec)
        self.calls.append(["process", *spec.argv])
        answer = self._script.answer(spec.argv)
        self._start(spec, answer)
        self.received.append(spec.stdin or b"")
        if stdin is not None:
            self.received[-1] = b"".join([block async for block in stdin])
        try:
            async with asyncio.timeout(spec.timeout_s):
                await asyncio.sleep(answer.delay_s)
        except TimeoutError as error:
            text = f"no end after {spec.timeout_s:g} s; its process tree was ended"
            raise StepTimeout(text, host=self._name, hint="raise timeout_s") from error
        if answer.raises is not None:
            raise answer.raises
        for stream, data in ((0, answer.stdout), (1, answer.stderr)):
            if data:
                recorder.feed(stream, data)
        if recorder.over_limit:
            text = f"output is over the limit of {recorder.limit_bytes} bytes"
            raise LimitExceeded(text, host=self._name, hint="its tree was ended")
        return ProcessExit(None if answer.signal else answer.exit_code, answer.signal)

    def _start(self, spec: ProcessSpec, answer: Answer) -> None:
        """Refuse what a real host refuses: a program that isn't there, or isn't among the admitted ones."""
        if answer.missing:
            hint = "install it; looked for " + ", ".join(spec.programs)
            raise ProgramNotFound(f"no such program: {spec.argv[0]}", host=self._name, hint=hint)
        usual = [path for path in spec.programs if path.startswith("/usr/bin/")]
        found = (usual or list(spec.programs))[0]
        if found not in spec.admitted:
            raise CapabilityDenied(
                f"exec:{found}",
                spec.admitted,
                host=self._name,
                layer="host",
                reason=f"{spec.argv[0]} is {found}",
            )

    async def call(self, operation: str, args: Sequence[bytes], *, run_as: str | None = None) -> list[bytes]:
        """Do one operation on the tree in memory, or answer facts and samples."""
        words = [args[0].decode("utf-8", "replace")] if args else []
        self.calls.append([operation, *words])
        if operation in self._failures:
            raise self._failures[operation]
        try:
            if operation == "facts":
                return [_packed({name: self._facts.get(name) for name in words[0].split(",")})]
            if operation == "observe":
                sample = self._samples.pop(0) if len(self._samples) > 1 else self._samples[0]
                return [_packed({"ts": 0.0, **dict.fromkeys(filter(None, words[0].split(","))), **sample})]
            return self.tree.call(operation, list(args))
        except FarError as error:
            raise as_error(error.code, error.text, error.details, host=self._name) from error

    async def sync(self, plan: SyncPlan) -> SyncResult:
        """Answer with the changes scripted for the remote path; nothing is copied."""
        self.plans.append(plan)
        self.calls.append([plan.direction, plan.local, plan.remote])
        if plan.direction in self._failures:
            raise self._failures[plan.direction]
        return SyncResult(changes=self._syncs.get(plan.remote, ()), method="rsync")

    async def open_tty(self, spec: ProcessSpec, term: str, columns: int, rows: int) -> FakeTerminal:
        """Open a terminal whose program says its scripted stdout and ends when that is read."""
        self.specs.append(spec)
        self.calls.append(["tty", *spec.argv])
        answer = self._script.answer(spec.argv)
        self._start(spec, answer)
        if answer.raises is not None:
            raise answer.raises
        return FakeTerminal(self._name, spec.run, answer)

    async def aclose(self) -> None:
        """Remember that it was closed."""
        self.closed = True


class FakeTerminal:
    """A terminal that says one answer. `keys`: what was typed; `sizes`: what it was resized to."""

    def __init__(self, host: str, run: str, answer: Answer) -> None:
        self._host = host
        self._run = run
        self._answer = answer
        self._unread = [answer.stdout] if answer.stdout else []
        self.keys = b""
        self.sizes: list[tuple[int, int]] = []

    async def read(self) -> bytes:
        """Return the answer's stdout, then the end."""
        return self._unread.pop() if self._unread else b""

    async def write(self, data: bytes) -> None:
        """Remember keystrokes."""
        self.keys += data

    def resize(self, columns: int, rows: int) -> None:
        """Remember a size, in characters."""
        self.sizes.append((columns, rows))

    async def wait(self) -> RunOutput:
        """Return how the program ended."""
        answer = self._answer
        return RunOutput(
            run=self._run,
            host=self._host,
            exit_code=None if answer.signal else answer.exit_code,
            signal=answer.signal,
            stdout=answer.stdout,
            stdout_bytes=len(answer.stdout),
        )

    async def aclose(self) -> None:
        """Say nothing more."""
        self._unread.clear()


def _packed(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()
