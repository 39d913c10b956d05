"""A whole bottle started by a plain user: no root, no setuid helper, nothing of root's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.parts.bottle_running import TOKEN, gone, processes_with
from tests.parts.plain_bottles import plain_bottles
from tests.parts.upstream_tls import Upstream
from tests.parts.waiting import eventually_now

BOTTLE = (
    "egress:\n  routes:\n    - host: api.test\n      auth: {scheme: Bearer, token_ref: API_TOKEN}\n"
    "      pipelock: {ssrf_ip_allowlist: [127.0.0.7]}\n"
)


def test_a_plain_user_s_bottle_is_as_tight_as_root_s(shared_dir: Path, plain_user: str, tmp_path: Path) -> None:
    with Upstream(tmp_path) as upstream:
        bottles = plain_bottles(shared_dir, plain_user, upstream, dev=BOTTLE)
        script = (
            "found['ok'] = get('https://api.test/v1/x')[0]\n"
            f"found['around'] = around_the_gate({upstream.port})\n"
            "found['sandbox'] = out_of_the_sandbox()\n"
        )
        ended = bottles.script("worker", script)
        assert ended.code == 0, ended.stderr[-2000:]
        answers = ended.answers
        assert answers["ok"] == 200
        assert upstream.requests[0].header("authorization") == [f"Bearer {TOKEN}"]
    around = answers["around"]
    assert "connected" not in [*around["four"], *around["six"], *around["datagrams"]]
    assert set(answers["sandbox"]["written"]) <= {"PermissionError", "OSError"}
    assert set(answers["sandbox"]["capabilities"]) == {"0000000000000000"}
    assert answers["sandbox"]["user namespace"] != 0


def test_a_plain_user_s_killed_launcher_leaves_no_process(shared_dir: Path, plain_user: str, tmp_path: Path) -> None:
    """LC1: the sandboxes' first processes can't be looked into by the user, and end all the same."""
    with Upstream(tmp_path) as upstream:
        bottles = plain_bottles(shared_dir, plain_user, upstream, dev=BOTTLE)
        script = "setsid sh -c 'sleep 4343 & sleep 4343' & sleep 4343"
        launcher = bottles.begin("worker", ["/bin/sh", "-c", script])
        eventually_now(lambda: len(processes_with(b"sleep\x004343")) >= 3, within_s=20, what="the agent has started")
        (state,) = (bottles.root.path / "state").iterdir()
        os.kill(launcher.pid, signal.SIGKILL)
        launcher.communicate(timeout=20)
        gone(b"sleep\x004343")
        gone(state.name.encode())
