"""A Secret reaches the program that needs it, and stands nowhere else that others can read."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from pathlib import Path

import pytest

from opsexec import Exec, Secret, Shell, StepFailed, Tty
from opsexec.errors import BadStep
from tests.parts.process_tree import descendants
from tests.parts.targets import Target

pytestmark = pytest.mark.anyio


class ArgvWatch:
    """Reads every process's argv again and again from a thread, looking for one text."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.seen: list[bytes] = []
        self.rounds = 0

    def _watch(self) -> None:
        while not self._over.is_set():
            for name in os.listdir("/proc"):
                if name.isdigit():
                    try:
                        argv = Path("/proc", name, "cmdline").read_bytes()
                    except (FileNotFoundError, ProcessLookupError):
                        continue
                    if self._text in argv:
                        self.seen.append(argv)
            self.rounds += 1

    def __enter__(self) -> ArgvWatch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(10)


@pytest.fixture
def secret() -> Secret:
    return Secret(f"hush-{secrets.token_hex(12)}")


def audit_text(tmp_path: Path) -> str:
    return "".join(path.read_text() for path in tmp_path.glob("audit*"))


async def test_the_watch_sees_what_does_stand_on_an_argv(local: Target) -> None:
    """Otherwise the tests below could not fail."""
    async with local.connect() as ex:
        with ArgvWatch("opsexec-visible-word") as watch:
            await ex.run(Shell(action="t", script="sleep 0.5 # opsexec-visible-word"))
    assert watch.seen


async def test_a_secret_in_the_environment_is_on_no_argv_and_in_no_audit(
    target: Target, secret: Secret, tmp_path: Path
) -> None:
    users = [None, "nobody"] if target.login == "root" else [None]
    async with target.connect() as ex:
        with ArgvWatch(secret.reveal()) as watch:
            for user in users:
                step = Exec(argv=("sh", "-c", "sleep 0.3; printenv TOKEN"), env={"TOKEN": secret}, run_as=user)
                assert (await ex.run(step)).text.strip() == secret.reveal()
                assert secret.reveal() not in repr(step)
        assert watch.rounds > 3
    assert watch.seen == []
    assert "TOKEN" in audit_text(tmp_path)
    assert secret.reveal() not in audit_text(tmp_path)


async def test_a_secret_on_stdin_is_on_no_argv_and_in_no_audit(target: Target, secret: Secret, tmp_path: Path) -> None:
    async with target.connect() as ex:
        with ArgvWatch(secret.reveal()) as watch:
            output = await ex.run(Exec(argv=("sh", "-c", "sleep 0.3; cat"), stdin=secret))
    assert output.stdout == secret.reveal().encode()
    assert watch.seen == []
    assert secret.reveal() not in audit_text(tmp_path)


async def test_a_secret_given_to_a_terminal_is_on_no_argv_and_in_no_audit(
    terminal_target: Target, secret: Secret, tmp_path: Path
) -> None:
    async with terminal_target.connect() as ex:
        with ArgvWatch(secret.reveal()) as watch:
            terminal = await ex.open_tty(Tty(argv=("/usr/bin/printenv", "TOKEN"), env={"TOKEN": secret}))
            said = b""
            while block := await terminal.read():
                said += block
            await terminal.wait()
            await terminal.aclose()
    assert said == secret.reveal().encode() + b"\r\n"
    assert watch.seen == []
    assert secret.reveal() not in audit_text(tmp_path)


async def test_a_secret_can_not_be_a_word(target: Target, secret: Secret) -> None:
    async with target.connect() as ex:
        with pytest.raises(BadStep, match="argv") as caught:
            await ex.run(Exec(argv=("echo", secret)))  # type: ignore[arg-type]  # what a caller might do by mistake
    assert secret.reveal() not in str(caught.value)


async def test_no_error_shows_a_secret(target: Target, secret: Secret) -> None:
    async with target.connect() as ex:
        for step in (
            Exec(argv=("no-such-program",), env={"TOKEN": secret}, stdin=secret),
            Exec(argv=("true",), cwd="/nowhere", env={"TOKEN": secret}),
            Exec(argv=("false",), env={"TOKEN": secret}, stdin=secret),
        ):
            with pytest.raises(StepFailed) as caught:
                await ex.run(step)
            shown = f"{caught.value!r} {caught.value} {caught.value.hint} {caught.value.output!r}"
            assert secret.reveal() not in shown


async def test_only_the_program_gets_the_secret_into_its_environment(target: Target, secret: Secret) -> None:
    """Looked for in the processes that the test itself started, sshd and the far half among them."""
    async with target.connect() as ex:
        await ex.run(Exec(argv=("true",)))
        task = asyncio.create_task(ex.run(Exec(argv=("sleep", "0.7"), env={"TOKEN": secret})))
        holders: set[str] = set()
        while not task.done():
            for process in descendants(os.getpid()):
                try:
                    if secret.reveal().encode() in Path(f"/proc/{process.pid}/environ").read_bytes():
                        holders.add(Path(f"/proc/{process.pid}/comm").read_text().strip())
                except (FileNotFoundError, ProcessLookupError):
                    continue
            await asyncio.sleep(0.01)
        await task
    assert holders == {"sleep"}
