"""A bottle on another host: the same launch by Steps through `connect(url)`, and that host's ceiling decides."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import require_sshd
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import TOKEN, Bottles, Ended, egress_environment, gone, identity_in, require_bottles
from tests.parts.ops_agent import OpsAgent
from tests.parts.sshd import Sshd
from tests.parts.tailnet import ALICE, Tailnet
from tests.parts.unix_user import current_user
from tests.parts.upstream_tls import Upstream

BOTTLE = """egress:
  routes:
    - host: api.test
      path_allowlist: [/v1]
      auth: {scheme: Bearer, token_ref: API_TOKEN}
      pipelock: {ssrf_ip_allowlist: [127.0.0.7]}
"""
SCRIPT = """
found['status'] = get('https://api.test/v1/x')[0]
found['evil'] = tunnel('evil.test')[1][:12]
open('left', 'w').write('by the agent')
"""
BOTTLE_PORT = 7461
"""Where an agent for bottles listens on the tailnet."""


@dataclass
class Far:
    """A home root here, and a directory that stands for another host's."""

    bottles: Bottles
    directory: Path

    def options(self, url: str, *more: str) -> list[str]:
        return [
            "--host",
            url,
            "--host-dir",
            str(self.directory),
            "--host-env",
            str(egress_environment().resolve()),
            *more,
        ]

    def script(self, url: str, *more: str) -> Ended:
        return self.bottles.script("worker", SCRIPT, *self.options(url, *more))

    def needs(self, url: str, *more: str) -> list[str]:
        """What `bottle capabilities` says; the agent that is asked must tell where things are."""
        done = self.bottles.command("capabilities", "worker", "--json", *self.options(url, *more))
        assert done.returncode == 0, done.stderr
        found: list[str] = json.loads(done.stdout)["capabilities"]
        return found


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    require_bottles()
    with Upstream(tmp_path_factory.mktemp("upstream"), ("api.test",)) as running:
        yield running


@pytest.fixture
def far(upstream: Upstream, tmp_path: Path) -> Far:
    upstream.requests.clear()
    root = HomeRoot(tmp_path / "home")
    root.bottle("dev", BOTTLE)
    root.agent("worker", "bottle: dev\n")
    directory = tmp_path / "far"
    directory.mkdir(mode=0o700)
    return Far(Bottles(root, upstream), directory)


def holding(*capabilities: str) -> list[dict[str, Any]]:
    return [{"principal": f"unix:{current_user()}", "capabilities": list(capabilities)}]


@pytest.fixture(scope="module")
def sshd_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sshd, Path]]:
    require_sshd()
    with Sshd() as server:
        path = tmp_path_factory.mktemp("ssh") / "config"
        path.write_text(server.endpoint().config_block("far"))
        yield server, path


def test_a_bottle_over_ssh_is_like_one_of_here(far: Far, sshd_config: tuple[Sshd, Path]) -> None:
    _, config = sshd_config
    project = far.directory.parent / "project"
    project.mkdir()
    (project / "file").write_text("x\n")
    far.bottles.cwd = project
    ended = far.script("ssh://far", "--ssh-config", str(config), "--cwd")
    assert ended.code == 0, ended.stderr
    assert (ended.answers["status"], ended.answers["evil"][:12]) == (200, "HTTP/1.1 403")
    assert far.bottles.upstream.requests[0].header("authorization") == [f"Bearer {TOKEN}"]
    assert (far.directory / ended.identity / "home" / "workspace" / "left").exists()
    assert not (far.bottles.state(ended.identity) / "home").exists()
    (row,) = json.loads(far.bottles.command("list", "--all", "--json").stdout)["bottles"]
    assert row["host"] == "ssh://far"
    diff = far.bottles.command("diff", ended.identity)
    assert "+by the agent" in diff.stdout, diff.stderr
    assert far.bottles.command("audit", ended.identity).returncode == 0
    assert f"removed {ended.identity}" in far.bottles.command("cleanup", "--all").stdout
    assert list(far.directory.iterdir()) == []


def test_what_is_left_of_a_bottle_whose_host_is_gone_stays_and_says_how_to_forget_it(far: Far, tmp_path: Path) -> None:
    require_sshd()
    config = tmp_path / "config"
    with Sshd() as server:
        config.write_text(server.endpoint().config_block("far"))
        ended = far.script("ssh://far", "--ssh-config", str(config))
        assert ended.code == 0, ended.stderr
    cleaned = far.bottles.command("cleanup", "--all")
    directory = far.bottles.state(ended.identity)
    assert (cleaned.returncode, directory.exists()) == (1, True)
    assert f"{ended.identity} stays: its host can't be cleaned: " in cleaned.stderr
    assert f"where that host, or its engine, is gone for good: rm -r {directory}\n" in cleaned.stderr


def test_an_agent_that_grants_exactly_what_is_printed_starts_it(far: Far, tmp_path: Path) -> None:
    """A copy of a directory, a skill, and the way of the work back included."""
    far.bottles.cwd = tmp_path / "project"
    far.bottles.cwd.mkdir()
    (far.bottles.cwd / "file").write_text("x\n")
    skill = far.bottles.root.path / "skills" / "review"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text("Look twice.\n")
    far.bottles.root.agent("worker", "bottle: dev\nskills: [review]\n")
    with OpsAgent() as open_to_all:
        needs = far.needs(open_to_all.url, "--cwd")
    with OpsAgent(holding(*needs)) as agent:
        ended = far.script(agent.url, "--cwd")
        assert ended.code == 0, ended.stderr
        assert ended.answers["status"] == 200
        assert TOKEN not in json.dumps(agent.records())
        assert (far.directory / ended.identity / "home" / "skills" / "review" / "SKILL.md").exists()
        assert "+by the agent" in far.bottles.command("diff", ended.identity).stdout
        resumed = far.bottles.command("resume", ended.identity, "-y", *far.bottles.reaching())
        assert resumed.returncode == 0, resumed.stderr
        assert not [each for each in agent.records() if each["decision"] == "deny"]
        assert f"removed {ended.identity}" in far.bottles.command("cleanup", "--all").stdout


def test_an_agent_that_grants_nothing_yet_is_asked_step_by_step_what_it_must_grant(far: Far) -> None:
    """First what to look at, in the refusal's hint; with that the whole list, with a directory that isn't there yet."""
    far.directory = far.directory / "kept"
    with OpsAgent(holding("exec:/usr/bin/true")) as agent:
        refused = far.bottles.command("capabilities", "worker", *far.options(agent.url))
        assert refused.returncode == 3
        hint = refused.stderr.partition("hint: grant ")[2]
        first = hint.partition(" to look; `bottle capabilities worker --host ")[0].split(", ")
        assert first == ["facts:user", f"fs.read:{egress_environment().resolve()}/pyvenv.cfg"]
    with OpsAgent(holding(*first)) as agent:
        needs = far.needs(agent.url)
    with OpsAgent(holding(*needs)) as agent:
        ended = far.script(agent.url)
        assert ended.code == 0, ended.stderr


def test_a_bottle_through_an_agent_behind_sshd_is_like_one_of_here(far: Far, sshd_config: tuple[Sshd, Path]) -> None:
    _, config = sshd_config
    with OpsAgent() as agent:
        url = f"agent+ssh://far{agent.socket}"
        whole_life(far, url, "--ssh-config", str(config))
        assert {each["principal"] for each in agent.records()} == {f"unix:{current_user()}"}


def test_a_bottle_on_a_node_of_the_tailnet_is_like_one_of_here(far: Far, tailnet: Tailnet) -> None:
    """The node's own upstream answers on its own loopback; what is granted is granted to alice, whose laptop asks."""
    far.bottles.env["OPSEXEC_TAILSCALED_SOCKET"] = str(tailnet["laptop"].socket)
    server = tailnet["server"]
    with OpsAgent() as open_to_all:
        needs = far.needs(open_to_all.url)
    grants = [{"principal": f"tailnet:{ALICE}", "capabilities": needs}]
    with OpsAgent(grants, tailscaled=server, tailnet_port=BOTTLE_PORT) as agent:
        whole_life(far, f"tailnet://server:{BOTTLE_PORT}", reaches=False)
        records = agent.records()
    assert {each["principal"] for each in records} == {f"tailnet:{ALICE}"}
    assert [(each["requires"], each["reason"]) for each in records if each["decision"] == "deny"] == []


def whole_life(far: Far, url: str, *more: str, reaches: bool = True) -> None:
    """Start, list, exec, stop, resume, stop, clean: by the commands, and what is left there at the end is nothing."""
    launcher, identity = begin(far, url, *more)
    (row,) = json.loads(far.bottles.command("list", "--json").stdout)["bottles"]
    assert (row["identity"], row["host"], row["state"]) == (identity, url, "running")
    ask = "import urllib.request as u; print(u.urlopen('https://api.test/v1/x').status)"
    done = far.bottles.command("exec", identity, "--", "/bin/sh", "-c", f'hostname; python3 -c "{ask}"; env')
    assert done.stdout.startswith("bottle\n"), done.stderr
    assert TOKEN not in done.stdout
    if reaches:
        assert done.stdout.splitlines()[1] == "200"
        assert far.bottles.upstream.requests[-1].header("authorization") == [f"Bearer {TOKEN}"]
    assert far.bottles.command("stop", identity).returncode == 0
    _, said = launcher.communicate(timeout=30)
    assert launcher.returncode == 143, said
    assert json.loads(far.bottles.command("list", "--json").stdout)["bottles"] == []
    gone(identity.encode())
    resumed = subprocess.Popen(
        far.bottles.argv("resume", identity, "-y", *far.bottles.reaching()),
        env=far.bottles.environ(), cwd=far.bottles.cwd, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until_running(resumed)
    assert far.bottles.command("stop", identity).returncode == 0
    resumed.communicate(timeout=30)
    assert f"removed {identity}" in far.bottles.command("cleanup", "--all").stdout
    assert list(far.directory.iterdir()) == []


def test_a_ceiling_without_sandboxes_refuses_and_nothing_is_left(far: Far) -> None:
    with OpsAgent() as open_to_all:
        needs = far.needs(open_to_all.url)
    with OpsAgent(holding(*(each for each in needs if not each.startswith("sandbox.")))) as agent:
        ended = far.script(agent.url)
        assert ended.code == 3, ended.stderr
        assert "sandbox." in ended.stderr
        assert "hint: " in ended.stderr
        assert "Traceback" not in ended.stderr
        assert json.loads(far.bottles.command("list", "--json").stdout)["bottles"] == []
        assert "sandbox.run" in {word.partition(":")[0] for each in agent.records() for word in each["requires"] or ()}
    assert list(far.directory.iterdir()) == []
    assert far.bottles.upstream.requests == []


MISSING = ["sandbox.run:worker-*.agent", "sandbox.network:worker-*.bundle", "fs.write:{far}/worker-*/guest/ca.pem"]


@pytest.mark.parametrize("line", MISSING)
def test_one_line_less_and_that_line_is_named(far: Far, line: str) -> None:
    line = line.replace("{far}", str(far.directory))
    with OpsAgent() as open_to_all:
        needs = far.needs(open_to_all.url)
    assert line in needs
    with OpsAgent(holding(*(each for each in needs if each != line))) as agent:
        ended = far.script(agent.url)
    assert ended.code in (1, 3)
    assert line.replace("-*", "-").partition("worker-")[0] in ended.stderr
    assert "not granted" in ended.stderr or "denied" in ended.stderr
    assert far.bottles.upstream.requests == []


def test_a_link_that_is_lost_ends_the_bottle(far: Far, sshd_config: tuple[Sshd, Path]) -> None:
    """LC9, SV15: what can't be talked to any more isn't left running."""
    server, config = sshd_config
    launcher, identity = begin(far, "ssh://far", "--ssh-config", str(config))
    server.kill_connections()
    _, said = launcher.communicate(timeout=40)
    assert launcher.returncode == 3, said
    gone(identity.encode(), within_s=40)
    rows = json.loads(far.bottles.command("list", "--all", "--json").stdout)["bottles"]
    assert [(each["identity"], each["state"]) for each in rows] == [(identity, "stopped")]


def test_a_killed_launcher_takes_its_bottle_on_the_host_along(far: Far) -> None:
    """LC1: nothing with a credential is left there."""
    with OpsAgent() as agent:
        launcher, identity = begin(far, agent.url)
        os.kill(launcher.pid, signal.SIGKILL)
        launcher.communicate(timeout=10)
        gone(identity.encode(), within_s=40)
        held = [
            path
            for path in far.directory.rglob("*")
            if path.is_file() and not path.is_relative_to(far.directory / identity / "code")
        ]
        assert not [path for path in held if TOKEN.encode() in path.read_bytes() or b"PRIVATE KEY" in path.read_bytes()]
        assert f"removed {identity}" in far.bottles.command("cleanup", "--all").stdout
        assert list(far.directory.iterdir()) == []


def test_exec_stop_and_resume_follow_it_there(far: Far) -> None:
    with OpsAgent() as agent:
        launcher, identity = begin(far, agent.url)
        done = far.bottles.command("exec", identity, "--", "/bin/sh", "-c", "echo here > note; hostname")
        assert (done.returncode, done.stdout) == (0, "bottle\n"), done.stderr
        assert far.bottles.command("stop", identity).returncode == 0
        launcher.communicate(timeout=20)
        assert (far.directory / identity / "home" / "note").read_text() == "here\n"
        far.bottles.root.agent("worker", "bottle: dev\n")
        resumed = subprocess.Popen(
            far.bottles.argv("resume", identity, "-y", *far.bottles.reaching()),
            env=far.bottles.environ(), cwd=far.bottles.cwd, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert resumed.stderr is not None
        said = ""
        while " is running" not in said:
            line = resumed.stderr.readline()
            assert line, said
            said += line
        resumed.terminate()
        resumed.communicate(timeout=20)
        assert agent.url in said


def test_a_host_that_isn_t_there_is_a_sentence(far: Far, tmp_path: Path) -> None:
    begun = time.monotonic()
    ended = far.script(f"agent+unix://{tmp_path}/none.sock")
    assert (ended.code, "Traceback" in ended.stderr, time.monotonic() - begun < 30) == (3, False, True)


def test_a_host_without_a_container_engine_is_told_before_anything_is_made(far: Far, tmp_path: Path) -> None:
    """Neither there nor here: a record would stay, with a host that can't be cleaned."""
    require_sshd()
    config = tmp_path / "config"
    with Sshd(extra=[f"SetEnv DOCKER_HOST=unix://{tmp_path}/none.sock"]) as server:
        config.write_text(server.endpoint().config_block("far"))
        far.bottles.root.bottle("dev", "agent_provider: {template: command, dockerfile: agent.Dockerfile}\n")
        (far.bottles.root.path / "agent.Dockerfile").write_text("FROM scratch\n")
        words = ["start", "worker", "--backend", "docker", *far.options("ssh://far", "--ssh-config", str(config))]
        refused = far.bottles.command(*words, "-y", "--", "true")
        assert (refused.returncode, f"{tmp_path}/none.sock can't be reached" in refused.stderr) == (3, True)
        assert "undoing" not in refused.stderr
        assert json.loads(far.bottles.command("list", "--all", "--json").stdout)["bottles"] == []
        assert list(far.directory.iterdir()) == []


def begin(far: Far, url: str, *more: str) -> tuple[subprocess.Popen[str], str]:
    """Start a bottle on a host and leave it running."""
    launcher = subprocess.Popen(
        far.bottles.start_argv("worker", ["/bin/sleep", "600"], *far.options(url, *more)),
        env=far.bottles.environ(), cwd=far.bottles.cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    return launcher, identity_in(until_running(launcher))


def until_running(launcher: subprocess.Popen[str]) -> str:
    """What a launcher says until its bottle runs."""
    assert launcher.stderr is not None
    said = ""
    while " is running" not in said:
        line = launcher.stderr.readline()
        assert line, said
        said += line
    return said
