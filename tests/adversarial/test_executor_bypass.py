"""Ways around a grant, tried against real programs."""

from __future__ import annotations

import asyncio
import json

import pytest

from opsexec import Exec, Shell
from opsexec.errors import CapabilityDenied, LimitExceeded, StepFailed, StepTimeout
from opsexec.steps import Tty

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


HUGE = Exec(["/usr/bin/true", *["x" * 100_000] * 7, *["y"] * 50_000])
"""Nearly as much as an argv may hold: twice that would not fit into one line of the audit."""


async def test_a_huge_step_is_refused_as_any_other_and_the_audit_says_so(local):
    async with local.connect("exec:/usr/bin/id") as ex:
        with pytest.raises(CapabilityDenied) as caught:
            await ex.run(HUGE)
    assert len(str(caught.value)) + len(caught.value.hint or "") < 5000
    lines = lines_of(local)
    assert [line["decision"] for line in lines] == ["deny"]
    assert lines[0]["step"]["argv"][0] == "/usr/bin/true"
    assert "sha256" in lines[0]["step"]["argv"][1]


async def test_a_huge_step_runs_and_its_line_holds_its_digest(local):
    async with local.connect("exec:/usr/bin/true **") as ex:
        assert (await ex.run(HUGE)).ok
    allowed, outcome = lines_of(local)
    assert len(json.dumps(allowed)) < 200_000
    assert outcome["outcome"]["exit_code"] == 0


async def test_a_step_that_is_skipped_for_a_path_of_odd_bytes_is_recorded(local, tmp_path):
    odd = tmp_path / "\udcff"
    odd.touch()
    async with local.connect() as ex:
        output = await ex.run(Exec(["true"], creates=str(odd)))
    assert output.skipped
    assert lines_of(local)[-1]["outcome"]["skipped"].endswith("\\udcff exists")


def lines_of(target):
    return [json.loads(line) for line in target.audit.path.read_text().splitlines()]


@pytest.fixture(params=["local", "ssh_root", "ssh_user"])
def direct(request):
    """Targets that open terminals."""
    return request.getfixturevalue(request.param)


async def test_a_terminals_output_is_limited_as_a_programs_is(direct):
    async with direct.connect(max_output_bytes=200_000) as ex:
        session = await ex.open_tty(
            Tty(argv=["/bin/sh", "-c", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"])
        )
        seen = 0
        async with asyncio.timeout(20):
            while block := await session.read():
                seen += len(block)
            with pytest.raises(LimitExceeded):
                await session.wait()
        await session.aclose()
    assert seen < 8 << 20


async def test_a_terminals_deadline_holds_while_nobody_reads(direct):
    async with direct.connect() as ex:
        session = await ex.open_tty(Tty(argv=["/usr/bin/yes"], timeout_s=1))
        async with asyncio.timeout(10):
            with pytest.raises(StepTimeout):
                await session.wait()
        await session.aclose()


async def test_a_terminal_beyond_the_sets_time_is_refused_and_its_end_recorded(local):
    async with local.connect("tty:**", max_timeout_s=5) as ex:
        with pytest.raises(LimitExceeded):
            await ex.open_tty(Tty(argv=["/bin/sh"], timeout_s=6))
    assert lines_of(local)[-1]["outcome"]["error"] == "limit"
