"""A service of git's whose client goes while it starts."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bottle.sidecars.git_gate import service
from bottle.sidecars.git_gate.config import Limits
from bottle.sidecars.git_gate.hook import Hooks
from bottle.sidecars.git_gate.repository import Repository
from tests.parts.bottle_running import processes_with
from tests.parts.waiting import eventually_now


def test_one_whose_client_goes_while_it_starts_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(mirror)], env={"PATH": "/usr/bin:/bin"}, check=True)
    (tmp_path / "declared.json").write_text('{"url": "ssh://git@git.test/site"}')
    repository = cast(Repository, SimpleNamespace(mirror=mirror))
    begin = asyncio.create_subprocess_exec

    async def gone_meanwhile() -> None:
        begun = asyncio.Event()

        async def slowly(*argv: Any, **given: Any) -> asyncio.subprocess.Process:
            process = await begin(*argv, **given)
            begun.set()
            await asyncio.sleep(0.05)
            return process

        monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
        hooks = Hooks("bottle", tmp_path)
        starting = asyncio.create_task(
            service.start("git-upload-pack", repository, Limits(), hooks=hooks, stateless=False)
        )
        await begun.wait()
        assert processes_with(str(mirror).encode())
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        eventually_now(lambda: not processes_with(str(mirror).encode()), within_s=10, what="its git is gone")

    asyncio.run(gone_meanwhile())
