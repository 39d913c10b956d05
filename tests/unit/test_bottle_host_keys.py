"""An upstream is held to the manifest's host key, else to what the operator's own known hosts hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bottle import changed, credentials
from bottle.cli import main
from bottle.errors import CredentialMissing
from bottle.host_keys import HostKeys, fingerprint, known
from bottle.manifest import load_object
from bottle.manifest.names import Upstream
from bottle.manifest.store import Loaded
from bottle.plan import BottlePlan, Intent, make_plan
from bottle.preflight import preflight
from bottle.providers.base import HostFacts
from bottle.sidecars.git_gate.config import known_hosts
from bottle.starting import planned
from tests.parts.bottle_manifests import HomeRoot
from tests.parts.host_key import host_key, public, ssh_keygen

URL = "ssh://git@git.test:2222/team/site"
NAME = "[git.test]:2222"


class Keys:
    """Some hosts' keys, and files of known hosts of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.one = host_key(directory, "one")
        self.two = host_key(directory, "two", "ecdsa")
        self.home = directory / "known_hosts"
        self.machine = directory / "ssh_known_hosts"

    def lines(self) -> tuple[str, str]:
        """Both keys, as known_hosts has them."""
        return public(self.one), public(self.two)

    def found(self, url: str = URL) -> HostKeys:
        """What both files say."""
        return known(Upstream(url), (str(self.home), str(self.machine)))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def loaded(**more: Any) -> Loaded:
    repository = {"url": URL, "identity": "/nowhere/key", **more}
    data = {
        "bottles": {"dev": {"git-gate": {"repos": {"site": repository}}}},
        "agents": {"a": {"bottle": "dev", "prompt": "P"}},
    }
    return load_object(data).load("a")


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The known hosts of an operator whose home is a test's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".ssh" / "known_hosts"
    path.parent.mkdir(mode=0o700)
    return path


def plan_here(**more: Any) -> BottlePlan:
    return planned(loaded(**more), Intent("a-00000000", arguments=("true",)))


def test_each_key_of_exactly_this_host_and_port_is_taken(keys: Keys) -> None:
    one, two = keys.lines()
    keys.home.write_text(f"git.test {two}\n[git.test]:22 {two}\n{NAME},other.test {one}\n[other.test]:2222 {two}\n")
    assert keys.found() == HostKeys((one,), str(keys.home))
    assert keys.found("ssh://git@git.test/team/site").keys == (two,)
    assert keys.found("ssh://git@GIT.test/team/site").keys == (two,)
    keys.machine.write_text(f"{NAME} {two}\n{NAME} {one} a comment\n")
    both = keys.found()
    assert both.keys == tuple(sorted((one, two)))
    assert both.where == f"{keys.home} and {keys.machine}"


def test_hashed_names_patterns_and_addresses_are_found(keys: Keys) -> None:
    one, two = keys.lines()
    keys.home.write_text(f"{NAME} {one}\n[127.0.0.3]:2222 {two}\n::1 {two}\n")
    ssh_keygen("-H", "-f", str(keys.home))
    assert "git.test" not in keys.home.read_text()
    assert keys.found().keys == (one,)
    assert keys.found("ssh://git@127.0.0.3:2222/x").keys == (two,)
    assert keys.found("ssh://git@[::1]/x").keys == (two,)
    keys.home.write_text(f"[*.test]:2222 {two}\n")
    assert keys.found().keys == (two,)


def test_a_revoked_key_is_no_key_wherever_it_is_revoked(keys: Keys) -> None:
    one, two = keys.lines()
    keys.home.write_text(f"{NAME} {one}\n{NAME} {two}\n")
    keys.machine.write_text(f"@revoked * {one}\n")
    assert keys.found().keys == (two,)
    keys.machine.write_text(f"@revoked * {one}\n@revoked {NAME} {two}\n")
    found = keys.found()
    assert found.keys == ()
    assert "is revoked" in found.problem


def test_what_vouches_for_others_is_no_host_key(keys: Keys) -> None:
    keys.home.write_text(f"@cert-authority [*.test]:2222 {keys.lines()[0]}\n")
    found = keys.found()
    assert found.keys == ()
    assert "a certificate authority is known, and no key" in found.problem


def test_a_revocation_that_can_t_be_read_leaves_no_key(keys: Keys) -> None:
    keys.home.write_text(f"{NAME} {keys.lines()[0]}\n")
    keys.machine.write_text("@revoked\n")
    found = keys.found()
    assert found.keys == ()
    assert f"can't be read ({keys.machine}" in found.problem


def test_where_nothing_is_known_it_says_where_it_looked(keys: Keys) -> None:
    assert keys.found() == HostKeys(
        (), f"{keys.home} and {keys.machine}", f"{keys.home} and {keys.machine}: no key of {NAME} is known"
    )


def test_fingerprints_are_ssh_keygen_s(keys: Keys) -> None:
    for private, line in zip((keys.one, keys.two), keys.lines(), strict=True):
        told = ssh_keygen("-lf", str(private.with_suffix(".pub"))).split()[1]
        assert fingerprint(line) == f"{told} ({line.split()[0]})"
        assert fingerprint(f"{NAME} {line} a comment") == fingerprint(line)
        assert fingerprint(f"@cert-authority * {line}") == f"{told} ({line.split()[0]} @cert-authority)"
    for text in ("", "ssh-ed25519", "ssh-ed25519 not/base64!", "SHA256:abc"):
        assert fingerprint(text) == "what can't be read as a key"


def test_the_gate_s_known_hosts_hold_them_all_and_ssh_finds_them(keys: Keys) -> None:
    lines = keys.lines()
    text = known_hosts(URL, "\n".join(lines))
    keys.home.write_text(text)
    found = ssh_keygen("-F", NAME, "-f", str(keys.home)).splitlines()
    assert [line for line in found if not line.startswith("#")] == text.splitlines()
    assert text.splitlines() == [f"{NAME} {line}" for line in lines]


def test_the_manifest_s_key_is_the_only_one_where_it_names_one(keys: Keys, operator: Path) -> None:
    one, two = keys.lines()
    operator.write_text(f"{NAME} {two}\n")
    plan = plan_here(host_key=one)
    assert plan.host_keys["site"] == HostKeys((one,), "the manifest")
    assert f"git host key  site {fingerprint(one)} from the manifest" in preflight(plan)
    assert plan.digest == make_plan(loaded(host_key=one), Intent("a-00000000", arguments=("true",))).digest


def test_a_key_of_the_operator_s_is_shown_and_another_one_is_told(keys: Keys, operator: Path, tmp_path: Path) -> None:
    one, two = keys.lines()
    operator.write_text(f"{NAME} {one}\n")
    before = plan_here()
    assert f"git host key  site {fingerprint(one)} from ~/.ssh/known_hosts" in preflight(before)
    changed.keep(tmp_path, changed.document(before))
    assert changed.differences(tmp_path, changed.document(plan_here())) == []
    operator.write_text(f"{NAME} {one}\n{NAME} {two}\n")
    after = plan_here()
    assert after.digest != before.digest
    told = changed.differences(tmp_path, changed.document(after))
    assert [line[:14] for line in told] == ["- git host key", "+ git host key"]
    assert fingerprint(two) in told[1]


def test_programs_are_told_it_under_its_whole_label(
    keys: Keys, operator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.write_text(f"{NAME} {keys.lines()[0]}\n")
    home = HomeRoot(tmp_path / "home")
    home.bottle("dev", f"git-gate:\n  repos:\n    site: {{url: '{URL}', identity: /nowhere/key}}\n")
    home.agent("a", "bottle: dev\n")
    monkeypatch.setenv("BOT_BOTTLE_ROOT", str(home.path))
    assert main(["info", "a", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)["lines"]
    assert ["git host key", f"site {fingerprint(keys.lines()[0])} from ~/.ssh/known_hosts"] in lines


def test_without_any_key_it_is_shown_so_and_nothing_is_read(operator: Path) -> None:
    plan = plan_here()
    assert any("git host key  site none: ~/.ssh/known_hosts and /etc" in line for line in preflight(plan))
    with pytest.raises(
        CredentialMissing, match=r"site has no host_key, and none is known .*\[git.test\]:2222"
    ) as caught:
        credentials.gather(plan, HostFacts(), str, {})
    assert "ssh-keyscan -p 2222 git.test" in str(caught.value.hint)


def configured(operator: Path, text: str) -> HostKeys:
    """What is known of the upstream with this configuration of the operator's ssh."""
    path = operator.with_name("config")
    path.write_text(text)
    path.chmod(0o600)
    return known(Upstream(URL))


def test_the_files_are_those_of_the_operator_s_ssh_configuration(keys: Keys, operator: Path) -> None:
    one, two = keys.lines()
    operator.write_text(f"{NAME} {two}\n")
    operator.with_name("own").write_text(f"{NAME} {one}\n")
    named = f"Host other.test\n  UserKnownHostsFile none\nHost git.test\n  UserKnownHostsFile ~/.ssh/none {keys.home}\n"
    keys.home.write_text(f"{NAME} {one}\n")
    assert configured(operator, named) == HostKeys((one,), str(keys.home))
    keys.machine.write_text(f"@revoked * {one}\n")
    assert configured(operator, f"{named}  GlobalKnownHostsFile {keys.machine}\n").keys == ()
    assert configured(operator, "Host git.test\n  UserKnownHostsFile ~/.ssh/own\n") == HostKeys((one,), "~/.ssh/own")
    none = configured(operator, "Host *\n  UserKnownHostsFile none\n  GlobalKnownHostsFile none\n")
    assert none.problem == f"no file: no key of {NAME} is known"


def test_under_its_alias_a_host_is_known_and_under_no_other_name(keys: Keys, operator: Path) -> None:
    one, two = keys.lines()
    alias = "Host git.test\n  HostName real.test\n  HostKeyAlias forge\n"
    operator.write_text(f"{NAME} {two}\n[real.test]:2222 {two}\n[forge]:2222 {two}\nforge {one}\n")
    assert configured(operator, alias) == HostKeys((one,), "~/.ssh/known_hosts, as forge")
    operator.write_text(f"{NAME} {two}\n")
    assert configured(operator, alias).problem.endswith(": no key of forge is known")


def test_what_is_known_of_its_host_name_counts_where_nothing_is_of_itself(keys: Keys, operator: Path) -> None:
    one, two = keys.lines()
    leads = "Host git.test\n  HostName real.%h\n  Port 2200\n"
    real = "[real.git.test]:2222"
    operator.write_text(f"{real} {one}\n[real.git.test]:2200 {two}\nreal.git.test {two}\n")
    assert configured(operator, leads) == HostKeys((one,), f"~/.ssh/known_hosts, as {real}")
    operator.write_text(f"{real} {one}\n{NAME} {two}\n")
    assert configured(operator, leads) == HostKeys((two,), "~/.ssh/known_hosts")
    operator.write_text(f"{real} {one}\n{NAME} {two}\n@revoked {real} {two}\n")
    assert f"what is known of {NAME} is revoked" in configured(operator, leads).problem
    operator.write_text("")
    assert configured(operator, leads).problem.endswith(f"no key of {NAME} and {real} is known")


def test_a_configuration_that_can_t_be_read_leaves_no_key(keys: Keys, operator: Path) -> None:
    operator.write_text(f"{NAME} {keys.lines()[0]}\n")
    assert "the ssh configuration can't be read" in configured(operator, "Port many\n").problem
    operator.with_name("config").chmod(0o666)
    assert "may be written by others" in known(Upstream(URL)).problem
    assert "may be written by others" in plan_here().host_keys["site"].problem
    assert plan_here(host_key=keys.lines()[0]).host_keys["site"].problem == ""
