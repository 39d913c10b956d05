"""What a repository, a file or a late change could slip into a launch: nothing starts with it."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import Bottles, identity_in, require_bottles
from tests.parts.upstream_tls import Upstream

ROUTES = """egress:
  routes:
    - host: open.test
      pipelock: {ssrf_ip_allowlist: [127.0.0.7]}
"""
BOTH = ROUTES + ROUTES.removeprefix("egress:\n  routes:\n").replace("open.test", "evil.test")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    require_bottles()
    with Upstream(tmp_path_factory.mktemp("upstream"), ("open.test", "evil.test")) as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> HomeRoot:
    """What a repository ships in its own `.bot-bottle`."""
    return HomeRoot(tmp_path / "repository" / ".bot-bottle")


@pytest.fixture
def bottles(upstream: Upstream, repository: HomeRoot, tmp_path: Path) -> Bottles:
    """Bottles that are started in that repository."""
    upstream.requests.clear()
    root = HomeRoot(tmp_path / "root")
    root.bottle("dev", ROUTES)
    root.agent("worker", "bottle: dev\n")
    return Bottles(root, upstream, cwd=repository.path.parent)


def assert_nothing_started(bottles: Bottles, agent: str = "worker") -> str:
    """Start an agent, which must be refused before anything is made; returns what was said."""
    before = bottles.upstream.connections
    ended = bottles.run(agent, ["/usr/bin/python3", "-c", "print('it ran')"])
    assert ended.code in (2, 3), ended
    assert "it ran" not in ended.stdout
    assert "Traceback" not in ended.stderr
    assert not (bottles.root.path / "state").exists() or not list((bottles.root.path / "state").iterdir())
    assert bottles.upstream.connections == before
    return ended.stderr


@pytest.mark.parametrize(
    "declared",
    [
        "egress: {routes: [{host: evil.test}]}",
        "env: {A: '${HOME}'}",
        "extends: dev",
        "agent_provider: {template: claude, auth_token: API_TOKEN}",
        "credentials: {API_TOKEN: x}",
        "mounts: ['/:/host']",
        "volumes: ['/var/run/docker.sock']",
        "dockerfile: Dockerfile",
        "supervise: false",
        "git-gate: {repos: {a: {url: 'ssh://git@evil.test/a', identity: ~/.ssh/id_ed25519}}}",
        "!!python/object/apply:os.system ['touch /tmp/x']",
        "<<: {egress: {routes: []}}",
    ],
)
def test_mf1_a_repository_s_agent_grants_itself_nothing(bottles: Bottles, repository: HomeRoot, declared: str) -> None:
    path = repository.agent("worker", f"bottle: dev\n{declared}\n")
    said = assert_nothing_started(bottles)
    assert f"{path}:" in said


def test_mf2_a_repository_s_bottle_doesn_t_shadow_yours(bottles: Bottles, repository: HomeRoot) -> None:
    repository.bottle("dev", BOTH + "env: {FROM: repository}\n")
    repository.agent("worker", "bottle: dev\n")
    ended = bottles.script(
        "worker",
        "found['came'] = [get('https://evil.test/')[0], get('https://open.test/x')[0], os.environ.get('FROM')]",
    )
    assert ended.answers["came"] in ([403, 200, None], [0, 200, None])
    assert [each.path for each in bottles.upstream.requests] == ["/x"]
    assert "bottles come from" in ended.stderr
    assert "not from your own manifests" in ended.stderr


def test_mf3_a_link_in_the_home_root_grants_nothing(bottles: Bottles, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.md").write_text(f"---\n{BOTH}---\n")
    (bottles.root.path / "bottles" / "dev.md").unlink()
    (bottles.root.path / "bottles" / "dev.md").symlink_to(tmp_path / "elsewhere.md")
    assert "is a symbolic link" in assert_nothing_started(bottles)


@pytest.mark.parametrize("part", ["bottles/dev.md", "bottles", "agents/worker.md", "agents", "."])
@pytest.mark.parametrize("mode", [0o002, 0o020])
def test_mf3_what_others_may_write_grants_nothing(bottles: Bottles, part: str, mode: int) -> None:
    path = bottles.root.path / part
    path.chmod(path.stat().st_mode | mode)
    assert "others may write it" in assert_nothing_started(bottles)


def test_mf3_a_link_of_the_repository_s_reads_no_other_file(bottles: Bottles, repository: HomeRoot) -> None:
    (repository.path / "agents" / "worker.md").symlink_to("/etc/shadow")
    said = assert_nothing_started(bottles)
    assert "root:" not in said


@pytest.mark.parametrize(
    ("extends", "says"),
    [
        ("dev", "dev -> dev"),
        ("other", "dev -> other -> dev"),
        ("gone", "there is no bottle 'gone'"),
        ("../agents/worker", "no bottle's name"),
        ("/etc/passwd", "no bottle's name"),
    ],
)
def test_mf5_extends_leads_in_no_circle_and_nowhere_else(bottles: Bottles, extends: str, says: str) -> None:
    bottles.root.bottle("other", "extends: dev\n")
    bottles.root.bottle("dev", f"extends: {extends}\n")
    assert says in assert_nothing_started(bottles)


@pytest.mark.parametrize(("key", "near"), [("egres", "egress"), ("enviroment", "env"), ("privileged", "allowed here")])
def test_mf7_a_key_nobody_knows_is_an_error(bottles: Bottles, key: str, near: str) -> None:
    path = bottles.root.bottle("dev", f"{ROUTES}{key}: {{}}\n")
    said = assert_nothing_started(bottles)
    assert f"{path}:6: unknown key {key!r}" in said
    assert near in said


def test_mf8_a_path_list_that_won_t_apply_is_warned_about(bottles: Bottles) -> None:
    routes = "egress: {routes: [{host: api.anthropic.com, path_allowlist: [/v1/messages]}]}\n"
    bottles.root.bottle("dev", "agent_provider: {template: claude}\n" + routes)
    shown = bottles.command("start", "worker", "--dry-run").stdout
    (warning,) = [line for line in shown.splitlines() if line.startswith("warning") and "api.anthropic.com" in line]
    assert "path_allowlist" in warning
    assert "won't apply" in warning


def test_mf9_what_was_shown_is_what_runs(bottles: Bottles) -> None:
    """The manifest is exchanged while the question stands: the answer is to what was shown."""
    ours, theirs = pty.openpty()
    program = "import urllib.request as u\nfor h in ('open', 'evil'):\n try: print(u.urlopen(f'https://{h}.test/{h}').status)\n"
    program += " except OSError as e: print(e)\n"
    argv = [word for word in bottles.start_argv("worker", ["/usr/bin/python3", "-c", program]) if word != "-y"]
    launcher = subprocess.Popen(
        argv, env=bottles.environ(), cwd=bottles.cwd, text=True,
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        os.close(theirs)
        assert launcher.stderr is not None
        shown = ""
        while "start it?" not in shown:
            block = os.read(launcher.stderr.fileno(), 65536).decode()
            assert block, shown
            shown += block
        bottles.root.bottle("dev", BOTH)
        bottles.root.agent("worker", "bottle: dev\n", "another prompt\n")
        os.write(ours, b"y\n")
        out, rest = launcher.communicate(timeout=40)
    finally:
        launcher.kill()
        launcher.wait()
        os.close(ours)
    assert "200" in out
    assert [each.path for each in bottles.upstream.requests] == ["/open"], out
    identity = identity_in(shown + rest)
    digest = json.loads((bottles.state(identity) / "metadata.json").read_text())["digest"]
    assert f"sha256:{digest}" in shown


def test_mf10_the_summary_hides_nothing(bottles: Bottles) -> None:
    names = [f"host-{number}.test" for number in range(80)]
    routes = "".join(f"    - host: {name}\n" for name in names)
    bottles.root.bottle(
        "dev",
        f"env: {{{', '.join(f'NAME_{number}: x' for number in range(80))}}}\n"
        f'git-gate: {{user: {{name: "Bob\\u202Emoc.live", email: b@x.test}}}}\negress:\n  routes:\n{routes}',
    )
    words = ["/bin/echo", "\x1b[2J\x1b]0;x\x07", "a\u202eb\u2066c\u200bd", "x\r\nbackend       none", "y" * 3000]
    ended = bottles.run("worker", words)
    assert ended.code == 0
    for name in (*names, *(f"NAME_{number}" for number in range(80)), "y" * 3000):
        assert name in ended.stderr
    for character in "\x1b\x07\r\u202e\u2066\u200b":
        assert character not in ended.stderr
    assert "\\u202e" in ended.stderr
    assert [line for line in ended.stderr.splitlines() if line.startswith("bottle: backend")] == [
        "bottle: backend       bwrap"
    ]


@pytest.mark.attack(backend="alone")
def test_mf11_an_image_is_made_of_the_operator_s_dockerfile_alone(bottles: Bottles, repository: HomeRoot) -> None:
    """The repository's file of that name isn't read; another text is another image; no argument is the host's."""
    theirs = repository.path.parent / "agent.Dockerfile"
    theirs.write_text("FROM evil\n")
    bottles.root.bottle("dev", "agent_provider: {template: command, dockerfile: agent.Dockerfile}\n")
    names = []
    for text in ("FROM debian:bookworm-slim\n", "FROM debian:bookworm-slim\nRUN true\n"):
        (bottles.root.path / "agent.Dockerfile").write_text(text)
        (bottles.root.path / "agent.Dockerfile").chmod(0o644)
        shown = bottles.command("start", "worker", "--dry-run", "--backend", "docker", "--", "true")
        assert shown.returncode == 0, shown.stderr
        assert "FROM evil" not in shown.stdout
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert f"sha256:{digest}" in shown.stdout  # in the summary, before anybody says yes
        steps = [json.loads(line[line.index("{") :]) for line in shown.stdout.splitlines() if '"image_build"' in line]
        assert all(step["build_args"] == {} for step in steps)
        (build,) = [step for step in steps if step["dockerfile"]["sha256"] == digest]
        assert digest.startswith(build["name"].partition(":")[2])
        assert any(f'"image": "{build["name"]}"' in line for line in shown.stdout.splitlines())
        names.append(build["name"])
    assert names[0] != names[1]


@pytest.mark.attack(backend="alone")
def test_mf11_a_dockerfile_that_is_a_link_is_refused(bottles: Bottles, repository: HomeRoot) -> None:
    (repository.path.parent / "evil").write_text("FROM evil\n")
    bottles.root.bottle("dev", "agent_provider: {template: command, dockerfile: agent.Dockerfile}\n")
    (bottles.root.path / "agent.Dockerfile").symlink_to(repository.path.parent / "evil")
    shown = bottles.command("start", "worker", "--dry-run", "--backend", "docker", "--", "true")
    assert shown.returncode in (2, 3)
    assert "link" in shown.stderr
