from __future__ import annotations

import os
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsexec.capability import Requirement
from opsexec.errors import BadInventory, OpsError
from opsexec.host_sources import tailnet_peers
from opsexec.inventory import Inventory, InventoryHost, find_inventory
from opsexec.patterns import NoHostMatches
from opsexec.secret_source import SecretSource

TEXT = """
[hosts.web1]
url = "ssh://deploy@127.0.0.1:2201"
groups = ["web"]
vars = { tier = "dev", token = { from_env = "TOKEN" } }
capabilities = ["exec:**", "fs.*:/srv/**"]
run_as = ["deploy"]

[hosts.db1]
url = "local:"
"""


def refused(text: str) -> BadInventory:
    with pytest.raises(BadInventory) as caught:
        Inventory.parse(textwrap.dedent(text), "inv.toml")
    return caught.value


def test_the_documented_inventory_is_read_as_it_stands():
    web1 = Inventory.parse(TEXT).hosts["web1"]
    assert web1.url == "ssh://deploy@127.0.0.1:2201"
    assert web1.groups == ("web",)
    assert web1.vars == {"tier": "dev", "token": SecretSource(from_env="TOKEN")}
    held = web1.capability_set()
    assert held.admits(Requirement("fs.write", "/srv/x"))
    assert not held.admits(Requirement("fs.write", "/etc/x"))
    held.require_user("deploy")
    with pytest.raises(OpsError):
        held.require_user("root")


def test_a_host_without_capabilities_may_be_asked_everything():
    db1 = Inventory.parse(TEXT).hosts["db1"].capability_set()
    assert db1.admits(Requirement("shell", "any.thing@sha256:" + "0" * 64))
    db1.require_user("root")


def test_run_as_without_capabilities_narrows_only_the_user():
    held = InventoryHost(name="a", url="local:", run_as=("web",)).capability_set()
    assert held.admits(Requirement("fs.write", "/etc/x"))
    held.require_user("web")
    with pytest.raises(OpsError):
        held.require_user("root")


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_key():
    error = refused('[hosts.web1]\nurl = "local:"\ngroup = ["web"]\n')
    assert error.message == "inv.toml:3: unknown key 'group'"
    assert error.hint == 'did you mean "groups"?'


def test_the_line_is_found_under_quoted_and_dotted_keys():
    assert refused('\nhosts.web1.url = "local:"\nhosts."web1".bogus = 1\n').message.startswith("inv.toml:3:")
    assert refused('[hosts]\nweb1 = { url = "local:", bogus = 1 }\n').message.startswith("inv.toml:2:")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[hosts.a]\nurl = "ssh://u:pw@h"\n', "inv.toml:2: a password stands in the URL"),
        ('[hosts.a]\nurl = "ssh://h/srv/app"\n', "inv.toml:2: 'ssh://h/srv/app' goes on after the host"),
        ('[hosts.a]\nurl = "tailnet://h?x"\n', "inv.toml:2: 'tailnet://h?x' goes on after the host"),
        ('[hosts.a]\nurl = "shh://h"\n', "inv.toml:2: unknown scheme 'shh'"),
        ('[hosts.a]\ngroups = ["x"]\n', "inv.toml:1: host 'a' has no url"),
        ('[hosts.a]\nurl = "local:"\ncapabilities = ["fs.raed:/x"]\n', "inv.toml:3: unknown verb 'fs.raed'"),
        ('[hosts.a]\nurl = "local:"\nhost_keys = "no"\n', "inv.toml:3: host_keys is 'no'"),
        ('[hosts.all]\nurl = "local:"\n', "inv.toml:1: 'all' can't be a host's name"),
        ('[hosts.a]\nurl = "local:"\nvars = { d = 2020-01-01 }\n', "inv.toml:3: the value of d is a date"),
        ("[hosts.a\n", "inv.toml:1:"),
        ("x = 1\n", "inv.toml:1: unknown key 'x'"),
        ("hosts = 3\n", "inv.toml:1: hosts is not a table"),
        ('[hosts.a]\nurl = "local:"\nvars = { t = { from_env = "A-B" } }\n', "inv.toml:3: from_env 'A-B'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, says):
    assert refused(text).message.startswith(says)


def test_a_password_in_a_url_is_never_repeated_in_the_error():
    assert "hunter2" not in str(refused('[hosts.a]\nurl = "ssh://u:hunter2@h"\n'))


@given(st.text(max_size=200))
def test_any_text_is_an_inventory_or_a_bad_inventory(text):
    said = "inventory.toml:"
    try:
        Inventory.parse(text)
    except BadInventory as error:
        said = error.message
    assert said.startswith("inventory.toml:")


def test_deep_nesting_is_refused_not_a_crash():
    refused("x = " + "[" * 5000 + "]" * 5000)


def test_an_executor_url_is_a_host_of_its_own():
    (host,) = Inventory().select("ssh://root@127.0.0.2:2201")
    assert host.name == host.url == "ssh://root@127.0.0.2:2201"
    assert Inventory().select("local:")[0].url == "local:"
    with pytest.raises(BadInventory):
        Inventory().select("http://x")


@pytest.mark.parametrize("url", ["ssh://u@[::1]:22/", "agent+ssh://u@h:22/run/a?b.sock", "agent+unix:///run/a#b.sock"])
def test_a_url_may_end_in_a_slash_and_a_socket_may_have_any_path(url):
    assert Inventory().select(url)[0].url == url


def test_a_pattern_that_matches_nothing_names_the_nearest():
    with pytest.raises(NoHostMatches) as caught:
        Inventory.parse(TEXT).select("web2")
    assert "'web2'" in caught.value.message
    assert caught.value.hint in ('did you mean "web1"?', 'did you mean "web"?')


def test_a_hosts_tier_variable_answers_like_a_group():
    assert [host.name for host in Inventory.parse(TEXT).select("web,&dev")] == ["web1"]


def test_the_places_are_looked_at_in_order(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / ".config/opsexec").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("OPSEXEC_INVENTORY", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_inventory() is None
    (home / ".config/opsexec/inventory.toml").touch()
    assert find_inventory() == home / ".config/opsexec/inventory.toml"
    (tmp_path / "inventory.toml").touch()
    assert str(find_inventory()) == "inventory.toml"
    monkeypatch.setenv("OPSEXEC_INVENTORY", "/named")
    assert str(find_inventory()) == "/named"
    assert str(find_inventory("/given")) == "/given"


@pytest.mark.parametrize("whose", ["another user's file", "another user's link", "writable for all"])
@pytest.mark.anyio
async def test_an_inventory_of_another_users_is_used_only_where_it_is_named(tmp_path, monkeypatch, whose):
    if os.geteuid() != 0 and whose != "writable for all":
        pytest.skip("needs root: another user's file")
    monkeypatch.delenv("OPSEXEC_INVENTORY", raising=False)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "inventory.toml"
    file.write_text('[hosts.web1]\nurl = "ssh://web1"\n')
    file.chmod(0o644)
    assert list((await Inventory.load()).hosts) == ["web1"]
    if whose == "writable for all":
        file.chmod(0o646)
    elif whose == "another user's file":
        os.chown(file, 65534, 65534)
    else:
        file.rename(tmp_path / "ours.toml")
        file.symlink_to("ours.toml")
        os.lchown(file, 65534, 65534)
    with pytest.raises(BadInventory, match="another user's or writable for all") as caught:
        await Inventory.load()
    assert caught.value.hint == "if you trust it: -i inventory.toml"
    assert list((await Inventory.load("inventory.toml")).hosts) == ["web1"]
    monkeypatch.setenv("OPSEXEC_INVENTORY", "inventory.toml")
    assert list((await Inventory.load()).hosts) == ["web1"]


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        ('[hosts.web1]\nurl = "ssh://web1"\nconfig_files = ["config"]\n', 3),
        ('[hosts.web1]\nurl = "ssh://web1"\n[sources]\nssh_config = "config"\n', 4),
    ],
)
@pytest.mark.anyio
async def test_an_ssh_config_is_named_only_by_an_inventory_that_is_named_itself(tmp_path, monkeypatch, lines, line):
    monkeypatch.delenv("OPSEXEC_INVENTORY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").write_text("Host web1\n  ProxyCommand touch ran\n")
    usual = tmp_path / "home/.config/opsexec"
    usual.mkdir(parents=True)
    (usual / "inventory.toml").write_text(lines)
    assert list((await Inventory.load()).hosts) == ["web1"]
    (tmp_path / "inventory.toml").write_text(lines)
    with pytest.raises(BadInventory, match=rf"^inventory\.toml:{line}: it names an ssh_config file") as caught:
        await Inventory.load()
    assert caught.value.hint == "if you trust it: -i inventory.toml"
    assert list((await Inventory.load("inventory.toml")).hosts) == ["web1"]
    monkeypatch.setenv("OPSEXEC_INVENTORY", "inventory.toml")
    assert list((await Inventory.load()).hosts) == ["web1"]


@pytest.mark.anyio
async def test_reading_no_ssh_config_or_ones_own_names_no_command(tmp_path, monkeypatch):
    monkeypatch.delenv("OPSEXEC_INVENTORY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "home/.ssh/config").write_text("Host db1\n")
    host = '[hosts.web1]\nurl = "ssh://web1"\nconfig_files = []\n'
    (tmp_path / "inventory.toml").write_text(host + "[sources]\nssh_config = true\n")
    assert list((await Inventory.load()).hosts) == ["db1", "web1"]


@pytest.mark.anyio
async def test_a_named_inventory_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(BadInventory):
        await Inventory.load(tmp_path / "none.toml")


def test_two_hosts_of_one_name_are_refused_not_one_of_them_forgotten():
    with pytest.raises(BadInventory, match="two hosts are named 'web1'"):
        Inventory([InventoryHost(name="web1", url="ssh://a"), InventoryHost(name="web1", url="ssh://b")])


@pytest.mark.parametrize("name", ["all", "a,b", "!a", "&a", "web*", "", " a", "a\n", "ssh://other"])
def test_a_name_that_a_pattern_takes_for_something_else_is_refused(name):
    with pytest.raises(BadInventory, match="can't be a host's name"):
        Inventory([InventoryHost(name="b", url="ssh://b"), InventoryHost(name=name, url="ssh://a")])


@pytest.mark.parametrize("name", ["10.0.0.5:2201", "web 1", "fe80::1", "ssh://a"])
def test_a_name_that_a_pattern_can_name_selects_that_host_alone(name):
    hosts = Inventory([InventoryHost(name="b", url="ssh://b"), InventoryHost(name=name, url="ssh://a")])
    (host,) = hosts.select(name)
    assert (host.name, host.url) == (name, "ssh://a")


@pytest.mark.anyio
async def test_a_byte_order_mark_is_no_part_of_an_inventory(tmp_path):
    (tmp_path / "i.toml").write_bytes(b'\xef\xbb\xbf[hosts.web1]\r\nurl = "local:"\r\n')
    assert list((await Inventory.load(tmp_path / "i.toml")).hosts) == ["web1"]


@pytest.mark.anyio
async def test_ssh_config_hosts_are_read_through_includes_without_wildcards(tmp_path):
    (tmp_path / "more").write_text("Host=db1\n  User x\nHost *.example !no\n")
    (tmp_path / "config").write_text(
        f'# Host commented\nInclude {tmp_path}/mo*\nHost web1 "web2" *\n  Port 22\nMatch all\nHostName x\n'
    )
    (tmp_path / "inv.toml").write_text(
        f'[sources]\nssh_config = "{tmp_path}/config"\n[hosts.web1]\nvars = {{ tier = "dev" }}\n'
    )
    inventory = await Inventory.load(tmp_path / "inv.toml")
    assert sorted(inventory.hosts) == ["db1", "web1", "web2"]
    web1 = inventory.hosts["web1"]
    assert (web1.url, web1.groups, web1.vars) == ("ssh://web1", ("ssh_config",), {"tier": "dev"})
    assert web1.config_files == (str(tmp_path / "config"),)


@pytest.mark.anyio
async def test_an_include_of_itself_ends_in_an_error(tmp_path):
    (tmp_path / "config").write_text(f"Include {tmp_path}/config\n")
    (tmp_path / "inv.toml").write_text(f'[sources]\nssh_config = "{tmp_path}/config"\n')
    with pytest.raises(BadInventory, match="nested"):
        await Inventory.load(tmp_path / "inv.toml")


@pytest.mark.anyio
async def test_a_missing_tailscale_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "inv.toml").write_text("[sources]\ntailnet = true\n")
    with pytest.raises(BadInventory, match="not installed"):
        await Inventory.load(tmp_path / "inv.toml")


@pytest.mark.anyio
@pytest.mark.parametrize(("text", "mode"), [("#!/bin/sh\n", 0o644), ("not a program\n", 0o755)])
async def test_a_tailscale_that_can_not_be_started_is_said_to_be(tmp_path, monkeypatch, text, mode):
    program = tmp_path / "tailscale"
    program.write_text(text)
    program.chmod(mode)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "inv.toml").write_text("[sources]\ntailnet = true\n")
    with pytest.raises(BadInventory, match="can't start the tailscale program") as caught:
        await Inventory.load(tmp_path / "inv.toml")
    assert caught.value.hint


@pytest.mark.anyio
async def test_tailnet_peers_with_a_wanted_tag_become_hosts(tmp_path, monkeypatch):
    fake_tailscale = tmp_path / "tailscale"
    fake_tailscale.write_text(
        '#!/bin/sh\necho \'{"MagicDNSSuffix": "tail.ts.net", "Peer": {'
        '"k1": {"DNSName": "srv1.tail.ts.net.", "Tags": ["tag:server"]},'
        ' "k2": {"DNSName": "phone.tail.ts.net."}, "k3": {"DNSName": "srv1.other.ts.net.", "Tags": ["tag:server"]},'
        ' "k4": {"HostName": "srv2", "Tags": ["tag:server"]}}}\'\n'
    )
    fake_tailscale.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "inv.toml").write_text('[sources]\ntailnet = { tags = ["tag:server"] }\n')
    inventory = await Inventory.load(tmp_path / "inv.toml")
    (host,) = inventory.hosts.values()
    assert (host.name, host.url, host.groups) == ("srv1", "tailnet://srv1", ("tailnet", "server"))


def test_a_status_without_peers_gives_no_hosts():
    assert tailnet_peers({"Peer": None}, []) == []
