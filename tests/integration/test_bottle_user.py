"""A whole bottle started by a plain user: no root, no setuid helper, nothing of root's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import require
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import (
    REPOSITORY,
    SCRIPT_HEAD,
    START_S,
    TOKEN,
    Bottles,
    Ended,
    egress_environment,
    identity_in,
    require_bottles,
)
from tests.parts.upstream_tls import Upstream

SYSTEM_PYTHON = Path("/usr/bin/python3")


def same_python() -> bool:
    """Whether the system's Python can use what this one has installed."""
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([SYSTEM_PYTHON, "-I", "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == wanted


@pytest.fixture
def theirs(plain_user: str, shared_dir: Path) -> Path:
    """A place of the user's, and an egress environment that they can read, on the system's Python."""
    require_bottles()
    require(SYSTEM_PYTHON, "needs the system's python3")
    require(same_python(), "needs the system's python3 to be of this environment's version")
    environment = shared_dir / "egress"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(SYSTEM_PYTHON)
    (environment / "pyvenv.cfg").write_text(f"home = {SYSTEM_PYTHON.parent}\n")
    shutil.copytree(egress_environment() / "lib", environment / "lib", copy_function=_link)
    home = shared_dir / "theirs"
    HomeRoot(home / ".bot-bottle")
    shared_dir.chmod(0o755)
    return home


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def test_a_plain_user_s_bottle_is_as_tight_as_root_s(theirs: Path, plain_user: str, tmp_path: Path) -> None:
    root = HomeRoot(theirs / ".bot-bottle")
    root.bottle(
        "dev",
        "egress:\n  routes:\n    - host: api.test\n      auth: {scheme: Bearer, token_ref: API_TOKEN}\n"
        "      pipelock: {ssrf_ip_allowlist: [127.0.0.7]}\n",
    )
    root.agent("worker", "bottle: dev\n")
    shutil.chown(theirs, plain_user)
    for path in theirs.rglob("*"):
        shutil.chown(path, plain_user)
    with Upstream(tmp_path) as upstream:
        authority = theirs / "upstream-ca.pem"
        shutil.copy(upstream.ca, authority)
        authority.chmod(0o644)
        bottles = Bottles(root, upstream)
        script = SCRIPT_HEAD + (
            "found['ok'] = get('https://api.test/v1/x')[0]\n"
            f"found['around'] = around_the_gate({upstream.port})\n"
            "found['sandbox'] = out_of_the_sandbox()\nprint(json.dumps(found))\n"
        )
        argv = bottles.start_argv("worker", ["/usr/bin/python3", "-c", script])
        argv[0] = str(SYSTEM_PYTHON)
        argv[argv.index("--upstream-ca") + 1] = str(authority)
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(theirs),
            "PYTHONPATH": f"{REPOSITORY}:{sysconfig.get_path('purelib')}",
            "BOTTLE_EGRESS_ENV": str(theirs.parent / "egress"),
            "BOT_BOTTLE_ROOT": str(root.path),
            "API_TOKEN": TOKEN,
        }
        done = subprocess.run(
            argv, env=env, cwd=theirs, user=plain_user, group=plain_user, extra_groups=[],
            capture_output=True, text=True, timeout=START_S, check=False,
        )  # fmt: skip
    ended = Ended(done.returncode, done.stdout, done.stderr, identity_in(done.stderr))
    assert ended.code == 0, ended.stderr
    answers = ended.answers
    assert answers["ok"] == 200
    assert upstream.requests[0].header("authorization") == [f"Bearer {TOKEN}"]
    around = answers["around"]
    assert "connected" not in [*around["four"], *around["six"], *around["datagrams"]]
    assert set(answers["sandbox"]["written"]) <= {"PermissionError", "OSError"}
    assert set(answers["sandbox"]["capabilities"]) == {"0000000000000000"}
    assert answers["sandbox"]["user namespace"] != 0
