"""`--json` of the commands that run something: one object on stdout when it has ended, whatever became of it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from opsexec.audit import verify
from tests.parts.bottle_running import Bottles
from tests.parts.small_bottles import bottles as bottles
from tests.parts.small_bottles import upstream as upstream  # fixtures, found by name


def one(text: str) -> dict[str, Any]:
    """The object, of which there is one, on a line of its own."""
    assert text.count("\n") == 1
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_start_and_a_resume_tell_how_their_agent_ended_and_where_everything_is(bottles: Bottles) -> None:
    ended = bottles.run("worker", ["/bin/sh", "-c", "echo out; echo err >&2; echo $MODE; exit 4"], "--json")
    assert ended.code == 4, ended.stderr
    told = one(ended.stdout)
    assert (told["identity"], told["agent"], told["backend"], told["state"]) == (
        ended.identity, "worker", "bwrap", "stopped",
    )  # fmt: skip
    assert (told["exit_code"], told["signal"], told["error"]) == (4, None, None)
    assert (told["stdout"], told["stderr"], told["truncated"]) == ("out\nfast\n", "err\n", False)
    assert Path(told["directory"]) == bottles.state(ended.identity)
    assert verify(Path(told["directory"]) / "audit.jsonl").ok
    (listed,) = json.loads(bottles.command("list", "--all", "--json").stdout)["bottles"]
    assert listed.items() <= told.items()
    again = bottles.command("resume", ended.identity, "-y", "--json", *bottles.reaching())
    assert again.returncode == 4, again.stderr
    assert one(again.stdout)["stdout"] == "out\nfast\n"


def test_one_that_is_stopped_tells_so_and_one_that_makes_nothing_tells_nothing(bottles: Bottles) -> None:
    launcher = bottles.begin("worker", ["/bin/sleep", "600"], "--json")
    try:
        (row,) = json.loads(bottles.command("list", "--json").stdout)["bottles"]
        bottles.command("stop", row["identity"])
        stdout, _ = launcher.communicate(timeout=60)
    finally:
        launcher.kill()
    told = one(stdout)
    assert (launcher.returncode, told["exit_code"], told["state"]) == (143, 143, "stopped")
    wrong = bottles.run("worker", ["/bin/true"], "--json", "--limit", "memory=many")
    assert (wrong.code, wrong.stdout) == (2, "")


def test_what_runs_beside_an_agent_and_what_its_daemons_said(bottles: Bottles) -> None:
    launcher = bottles.begin("worker", ["/bin/sleep", "600"])
    try:
        (row,) = json.loads(bottles.command("list", "--json").stdout)["bottles"]
        identity = row["identity"]

        def ran(*argv: str) -> tuple[int, dict[str, Any]]:
            done = bottles.command("exec", identity, "--json", "--", *argv)
            return done.returncode, one(done.stdout)

        code, told = ran("/bin/sh", "-c", "printf 'a\\377'; echo said >&2; exit 9")
        assert (code, told["exit_code"], told["identity"]) == (9, 9, identity)
        assert (told["stdout_encoding"], base64.b64decode(told["stdout"])) == ("base64", b"a\xff")
        assert (told["stderr_encoding"], told["stderr"]) == ("utf-8", "said\n")
        code, told = ran("/bin/sh", "-c", "kill -9 $$")
        assert (code, told["exit_code"], told["error"]) == (128 + 9, 128 + 9, None)
        said = [json.loads(line) for line in bottles.command("logs", identity, "--json").stdout.splitlines()]
        assert [json.loads(each["text"])["event"] for each in said if each["source"] == "egress"] == ["ready"]
    finally:
        launcher.terminate()
        launcher.communicate(timeout=60)
    none = bottles.command("exec", identity, "--json", "--", "/bin/true")
    assert (none.returncode, one(none.stdout)["error"]["code"]) == (2, "no_such_bottle")
