"""What `--json` keeps of a program: the end of each stream, as text where it is text, and how much there was."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from bottle.commands.outcome import KEPT_BYTES, Outcome, of_a_bottle
from bottle.errors import LaunchFailed
from bottle.state import Metadata, State

pytestmark = pytest.mark.anyio


async def test_text_stands_as_it_is_and_bytes_as_base64() -> None:
    outcome = Outcome()
    for data in ("é".encode()[:1], "é".encode()[1:], b"\x1b[2J\n"):
        await outcome.write("stdout", data)
    await outcome.write("stderr", b"a\xff")
    outcome.exit_code = 3
    assert outcome.as_json() == {
        "exit_code": 3,
        "signal": None,
        "stdout": "é\x1b[2J\n",
        "stdout_encoding": "utf-8",
        "stdout_bytes": 7,
        "stderr": base64.b64encode(b"a\xff").decode(),
        "stderr_encoding": "base64",
        "stderr_bytes": 2,
        "truncated": False,
        "error": None,
    }


@pytest.mark.parametrize("shift", range(4))
async def test_the_end_is_kept_and_a_cut_through_a_character_spoils_none(shift: int) -> None:
    outcome = Outcome()
    whole = b"x" * shift + "𝄞".encode() * (KEPT_BYTES // 2)
    for at in range(0, len(whole), 65521):
        await outcome.write("stdout", whole[at : at + 65521])
    await outcome.write("stdout", b"!" * (shift + 1))
    said = outcome.as_json()
    assert (said["stdout_encoding"], said["truncated"]) == ("utf-8", True)
    assert said["stdout_bytes"] == len(whole) + shift + 1
    assert KEPT_BYTES - 4 < len(said["stdout"].encode()) <= KEPT_BYTES
    assert said["stdout"].strip("!").strip("𝄞") == ""


async def test_a_bottle_that_failed_is_one_object_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = State(tmp_path)
    state.make(Metadata("worker-00000001", "worker", "/", False, 1.0, "bwrap", phase="stopped"))

    async def failing() -> None:
        with of_a_bottle(state, "worker-00000001", asked=True) as outcome, state.held("worker-00000001"):
            assert outcome is not None
            await outcome.write("stdout", b"before")
            raise LaunchFailed("the bundle ended", hint="look")

    with pytest.raises(LaunchFailed):
        await failing()
    told = json.loads(capsys.readouterr().out)
    assert (told["identity"], told["state"], told["exit_code"]) == ("worker-00000001", "stopped", None)
    assert (told["stdout"], told["directory"]) == ("before", str(state.directory("worker-00000001")))
    assert told["error"] == {"code": LaunchFailed.code, "message": "the bundle ended", "hint": "look"}
