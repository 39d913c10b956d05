"""What a bottle's manifests said is kept beside it, and counts while they say the same and are judged the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bottle.errors import BadManifest
from bottle.manifest import kept
from bottle.manifest.store import Loaded, Manifests, load_directories
from tests.parts.bottle_manifests import HomeRoot

BASE = """env: {MODE: fast, PIN: "?the pin", DB: "${DATABASE_URL}"}
agent_provider: {template: claude, auth_token: CLAUDE_TOKEN}
git-gate:
  user: {name: Bot}
  repos:
    site:
      url: ssh://git@git.test/team/site
      identity: ~/.ssh/site
      host_key: ssh-ed25519 AAAA
      policy: {protected: [HEAD, "release/*"], forced: false, max_bytes: 1000}
"""
DEV = """extends: base
egress:
  routes:
    - host: api.test
      path_allowlist: [/v1, /files/]
      methods: [GET]
      query_allowlist: []
      auth: {scheme: Bearer, token_ref: API_TOKEN}
      pipelock: {ssrf_ip_allowlist: [10.1.0.0/16]}
supervise: true
"""


@pytest.fixture
def home(tmp_path: Path) -> HomeRoot:
    """A home root with an agent, its bottle and what that extends."""
    root = HomeRoot(tmp_path / "root")
    root.bottle("base", BASE)
    root.bottle("dev", DEV)
    root.agent("worker", "bottle: dev\nskills: [review]\ngit-gate: {user: {email: w@x.test}}\n", "Do the work.\n")
    return root


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A bottle's directory."""
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


class Watched(Manifests):
    """Manifests that tell whether they were judged."""

    judged = 0

    def load(self, name: str) -> Loaded:
        self.judged += 1
        return super().load(name)


def seen(home: HomeRoot, cwd: Path | None = None) -> Watched:
    found = load_directories(home.path, cwd)
    found.__class__ = Watched
    assert isinstance(found, Watched)
    return found


def judged_again(home: HomeRoot, state: Path, cwd: Path | None = None) -> bool:
    manifests = seen(home, cwd)
    loaded = kept.load(state, manifests, "worker")
    assert loaded == load_directories(home.path, cwd).load("worker")
    return manifests.judged == 1


def test_what_was_kept_is_what_is_read_down_to_each_value(home: HomeRoot, state: Path) -> None:
    first = load_directories(home.path).load("worker")
    kept.keep(state, first)
    assert not judged_again(home, state)
    assert (state / kept.NAME).stat().st_mode & 0o777 == 0o600


def test_a_bottle_without_anything_kept_is_read(home: HomeRoot, state: Path) -> None:
    assert judged_again(home, state)


@pytest.mark.parametrize("name", ["base", "dev"])
def test_a_bottle_that_says_another_thing_is_judged_again(home: HomeRoot, state: Path, name: str) -> None:
    kept.keep(state, load_directories(home.path).load("worker"))
    home.bottle(name, {"base": BASE, "dev": DEV}[name] + "# another word\n")
    assert judged_again(home, state)


def test_an_agent_that_says_another_thing_is_judged_again(home: HomeRoot, state: Path) -> None:
    kept.keep(state, load_directories(home.path).load("worker"))
    home.agent("worker", "bottle: base\n", "Do other work.\n")
    assert judged_again(home, state)


def test_an_agent_of_the_repository_with_the_same_words_is_judged_again(
    home: HomeRoot, state: Path, tmp_path: Path
) -> None:
    kept.keep(state, load_directories(home.path).load("worker"))
    theirs = tmp_path / "work" / ".bot-bottle" / "agents"
    theirs.mkdir(parents=True)
    (theirs / "worker.md").write_bytes((home.path / "agents" / "worker.md").read_bytes())
    assert judged_again(home, state, tmp_path / "work")


def test_what_others_may_write_is_refused_whatever_was_kept(home: HomeRoot, state: Path) -> None:
    kept.keep(state, load_directories(home.path).load("worker"))
    (home.path / "bottles" / "base.md").chmod(0o666)
    with pytest.raises(BadManifest, match="others may write it"):
        kept.load(state, load_directories(home.path), "worker")


def test_what_was_removed_is_missed_whatever_was_kept(home: HomeRoot, state: Path) -> None:
    kept.keep(state, load_directories(home.path).load("worker"))
    (home.path / "bottles" / "base.md").unlink()
    with pytest.raises(BadManifest, match="there is no bottle 'base'"):
        kept.load(state, load_directories(home.path), "worker")


def test_what_others_may_read_or_write_or_links_to_isnt_taken(home: HomeRoot, state: Path) -> None:
    kept.keep(state, load_directories(home.path).load("worker"))
    path = state / kept.NAME
    path.chmod(0o620)
    assert judged_again(home, state)
    path.chmod(0o600)
    assert not judged_again(home, state)
    path.rename(state / "elsewhere")
    path.symlink_to(state / "elsewhere")
    assert judged_again(home, state)
    path.unlink()
    path.mkdir(0o700)
    assert judged_again(home, state)


@pytest.mark.parametrize("text", ["", "{}", "[1", '{"judged_by": 1, "loaded": null}', "\x00" * 40, "[" * 100_000])
def test_what_cant_be_read_isnt_taken(home: HomeRoot, state: Path, text: str) -> None:
    path = state / kept.NAME
    path.write_text(text)
    path.chmod(0o600)
    assert judged_again(home, state)


def test_what_other_code_judged_is_judged_again(home: HomeRoot, state: Path) -> None:
    kept.keep(state, load_directories(home.path).load("worker"))
    path = state / kept.NAME
    said = json.loads(path.read_text())
    said["judged_by"] = "0" * 64
    path.write_text(json.dumps(said))
    assert judged_again(home, state)


def test_keeping_writes_through_no_link(home: HomeRoot, state: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (state / kept.NAME).symlink_to(victim)
    (state / kept.NAME).with_suffix(".new").symlink_to(victim)
    kept.keep(state, load_directories(home.path).load("worker"))
    assert victim.read_text() == "mine"
    assert not judged_again(home, state)


def test_going_on_imports_no_validator(home: HomeRoot, state: Path) -> None:
    kept.keep(state, load_directories(home.path).load("worker"))
    program = f"""
import sys
from pathlib import Path
import bottle.starting, bottle.attended, bottle.launch
from bottle.manifest import kept
from bottle.manifest.store import load_directories
from bottle.plan import Intent, make_plan
loaded = kept.load(Path({str(state)!r}), load_directories(Path({str(home.path)!r})), "worker")
make_plan(loaded, Intent("worker-00000000"))
print("pydantic" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
