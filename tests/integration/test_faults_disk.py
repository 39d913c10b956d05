"""A full or broken file system on the host: the step says so, what stood there stands, and other steps go on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import Exec, ReadFile, Shell, StepFailed, WriteFile
from tests.conftest import require
from tests.integration.conftest import require_root
from tests.parts.targets import Target

pytestmark = pytest.mark.anyio
ROOM = 256 << 10


@pytest.fixture
def full_disk(shared_dir: Path) -> Iterator[Path]:
    """A file system of 256 KiB that is full but for what an old file holds."""
    require_root()
    place = shared_dir / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=0777", "tmpfs", str(place)], capture_output=True, check=False
    )
    require(mounted.returncode == 0, "needs mount(8)")
    try:
        old = place / "old"
        old.write_text("as it was")
        old.chmod(0o666)
        subprocess.run(["sh", "-c", f"cat /dev/zero > {place}/filler"], capture_output=True, check=False)
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


async def test_a_write_on_a_full_disk_is_a_typed_error_and_the_old_file_stands(target: Target, full_disk: Path) -> None:
    async with target.connect() as ex:
        for name in ("old", "new"):
            with pytest.raises(StepFailed, match=r"[Nn]o space") as caught:
                await ex.run(WriteFile(str(full_disk / name), "x" * ROOM))
            assert "free space" in (caught.value.hint or "")
        assert (full_disk / "old").read_text() == "as it was"
        assert sorted(os.listdir(full_disk)) == ["filler", "old"]
        assert (await ex.run(Exec(argv=("echo", "on")))).text == "on\n"


async def test_programs_read_and_fail_as_themselves_on_a_full_disk(target: Target, full_disk: Path) -> None:
    async with target.connect() as ex:
        output = await ex.run_streaming(Shell(action="t", script=f"cd {full_disk}; head -c 100000 /dev/zero > more"))
        assert output.exit_code not in (0, None)
        assert b"No space left on device" in output.stderr
        assert (await ex.run(ReadFile(str(full_disk / "old")))).ok


async def test_a_session_starts_where_nothing_can_be_written(
    target: Target, full_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of ours is put on the host's disk, nor needs a directory for temporary files."""
    monkeypatch.setenv("TMPDIR", str(full_disk))
    monkeypatch.setenv("HOME", str(full_disk))
    async with target.connect() as ex:
        assert (await ex.run(Exec(argv=("echo", "hi"), cwd=str(full_disk), env={"TMPDIR": str(full_disk)}))).ok
    assert sorted(os.listdir(full_disk)) == ["filler", "old"]
