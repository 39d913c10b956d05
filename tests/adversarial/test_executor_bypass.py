"""Ways around a grant, tried against real programs."""

from __future__ import annotations

import pytest

from opsexec import Exec, Shell
from opsexec.errors import StepFailed

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("interpreter", ["/bin/sh", "/bin/bash"])
@pytest.mark.parametrize("script", ["-x", "-c", "--", "+e", "-ec 'echo took the action for a script'"])
async def test_a_script_that_begins_with_a_dash_is_a_script_and_its_action_only_a_name(target, script, interpreter):
    async with target.connect("shell:id") as ex:
        output = await ex.run_streaming(Shell("id", script, interpreter=interpreter))
    assert output.exit_code == 127
    assert b"uid=" not in output.stdout + output.stderr
    assert b"took" not in output.stdout


async def test_a_program_is_told_the_path_that_was_admitted(target, tmp_path):
    """gcc, for one, looks for its own parts beside argv[0], where `..` behind a link is another place."""
    (tmp_path / "link").symlink_to("/tmp")
    odd = f"{tmp_path}/link/{'../' * 40}usr/bin/cat"
    async with target.connect("exec:/usr/bin/cat /proc/self/cmdline") as ex:
        output = await ex.run(Exec([odd, "/proc/self/cmdline"]))
    assert output.stdout == b"/usr/bin/cat\0/proc/self/cmdline\0"


async def test_a_pinned_script_is_that_script_to_the_byte(target):
    pinned = Shell("act", "echo \udcff")
    async with target.connect(f"shell:act@sha256:{pinned.digest}") as ex:
        assert (await ex.run(pinned)).stdout == b"\xff\n"
    with pytest.raises(StepFailed):
        (await _ended(target, Shell("act", "exit 3"))).check()


async def _ended(target, step):
    async with target.connect("shell:act") as ex:
        return await ex.run_streaming(step)
