"""Who a host is, and what its name may hold: tricks with known hosts and with URLs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from opsexec import CapabilitySet, Exec, HostKeyRejected, connect
from opsexec.audit.null import NullAudit
from opsexec.errors import HostUnreachable, OpsError, UsageError
from opsexec.hosts.asyncssh_loader import asyncssh
from opsexec.hosts.known_hosts import HostKeyCheck
from opsexec.hosts.ssh_login import SshAddress
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio


def key(directory: Path, name: str) -> asyncssh.SSHKey:
    file = directory / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    return asyncssh.read_public_key(file.with_suffix(".pub"))


def asks(check: HostKeyCheck) -> HostKeyCheck:
    """As asyncssh does when a login begins."""
    check.lookup("web1", "10.0.0.1", 22)
    return check


async def test_of_two_logins_that_learn_a_host_at_once_only_one_key_is_believed(tmp_path):
    true, false = key(tmp_path, "true"), key(tmp_path, "false")
    known = tmp_path / "known_hosts"
    one, other, third = (asks(HostKeyCheck([str(known)], "accept-new")) for _ in range(3))
    assert one.validate_host_public_key("web1", "10.0.0.1", 22, true)
    assert not other.validate_host_public_key("web1", "10.0.0.1", 22, false)
    assert third.validate_host_public_key("web1", "10.0.0.1", 22, true)
    assert len(known.read_text().splitlines()) == 1
    error = other.rejection("web1")
    assert (error.expected, error.got) == (true.get_fingerprint(), false.get_fingerprint())


@pytest.mark.parametrize("known_hosts", ["/dev/null", []])
async def test_accept_new_needs_a_file_that_remembers(sshd, known_hosts):
    """Otherwise each login would believe whoever answers."""
    endpoint = sshd.endpoint()
    logins = sshd.logins()
    async with connect(
        endpoint.url,
        capabilities=CapabilitySet.everything(),
        audit=NullAudit(),
        identity_files=[str(endpoint.identity)],
        known_hosts=known_hosts,
        host_keys="accept-new",
        config_files=(),
    ) as ex:
        with pytest.raises(HostKeyRejected, match="remembered"):
            await ex.run(Exec(["true"]))
    assert sshd.logins() == logins


@pytest.mark.parametrize(
    "address",
    [
        "-oProxyCommand=id@web1", "-J", "u@-oProxyCommand=id", "u@$(id)", "u@`id`", "u@web1;id", "u@web1|id", "u@a'b",
        'u@a"b', "u@a\\", "u@a b", "a b@web1", "a\n@web1", "u@web1\n", "u'@web1", "u;id@web1", "u@a&b", "u@{a,b}",
        "u@\x1b[2J", "u@\x9b2J", "u@web1/..", "@web1", "u@",
    ],
)  # fmt: skip
async def test_a_host_or_user_that_a_shell_could_misread_is_no_address(address):
    with pytest.raises(UsageError):
        SshAddress.parse(address)


@pytest.mark.parametrize(
    "address", ["web1", "u.v-w+x@web-1.example:22", "DOM@user@web1", "u@[fe80::1%eth0]:22", "DOM\\u@ß"]
)
async def test_an_ordinary_address_is_one(address):
    assert str(SshAddress.parse(address)) == address


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return tmp_path


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
async def test_a_configuration_that_others_may_write_is_not_read(home, mode):
    """It may name a ProxyCommand, which runs here: that is as in ssh(1), and so is this."""
    config = home / ".ssh" / "config"
    config.write_text(f"Host *\n  ProxyCommand touch {home}/ran\n")
    config.chmod(mode)
    async with connect("ssh://u@web1", capabilities=CapabilitySet.everything(), audit=NullAudit()) as ex:
        with pytest.raises(UsageError, match="written by others"):
            await ex.run(Exec(["true"]))
    assert not (home / "ran").exists()


RELAY = """
import socket, sys, threading, os
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
open(sys.argv[3], "w").write(str(os.getpid()))
def back():
    while data := link.recv(65536): os.write(1, data)
threading.Thread(target=back, daemon=True).start()
while data := os.read(0, 65536): link.sendall(data)
"""


async def test_a_proxy_command_of_the_users_own_runs_without_a_shell_and_ends_with_the_executor(sshd, home):
    endpoint = sshd.endpoint()
    (home / "relay.py").write_text(RELAY)
    config = home / ".ssh" / "config"
    config.write_text(
        endpoint.config_block("web1") + f"  ProxyCommand {sys.executable} {home}/relay.py %h %p {home}/$(id)\n"
    )
    config.chmod(0o600)
    async with connect(
        "ssh://web1", capabilities=CapabilitySet.everything(), audit=NullAudit(), known_hosts=str(endpoint.known_hosts)
    ) as ex:
        assert (await ex.run(Exec(["true"]))).ok
        pid = int((home / "$(id)").read_text())
        assert Path(f"/proc/{pid}").exists()
    await eventually(lambda: not Path(f"/proc/{pid}").exists(), within_s=20, what="the end of the proxy command")


class FakeServer(asyncssh.SSHServer):
    """A server that lets everyone in and then asks its client for channels of its own."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.methods: list[str] = []
        self.refused: dict[str, bool] = {}

    def connection_made(self, conn):
        self.connection = conn

    def begin_auth(self, username):
        return self.lets_in is False

    lets_in = True

    def password_auth_supported(self):
        return True

    def validate_password(self, username, password):
        self.methods.append("password")
        return True

    def kbdint_auth_supported(self):
        return True

    def get_kbdint_challenge(self, username, lang, submethods):
        self.methods.append("kbdint")
        return "", "", "", [("your password, please: ", False)]

    def session_requested(self):
        return False

    async def reach_back(self):
        """Open every kind of channel that a server can ask for; note which of them the client refused."""
        connection = self.connection
        tries = {
            "agent": connection.open_agent_connection if hasattr(connection, "open_agent_connection") else None,
            "port": lambda: connection.create_connection(asyncssh.SSHTCPSession, "127.0.0.1", 22, "127.0.0.1", 1),
            "socket": lambda: connection.create_unix_connection(asyncssh.SSHUNIXSession, "/run/x.sock"),
        }
        for name, attempt in tries.items():
            if attempt is None:
                continue
            try:
                await attempt()
                self.refused[name] = False
            except (asyncssh.Error, OSError):
                self.refused[name] = True


@pytest.fixture
async def fake_server(tmp_path):
    """(server objects so far, its url, its known hosts): a server of our own on loopback."""
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    made: list[FakeServer] = []

    def make() -> FakeServer:
        made.append(FakeServer())
        return made[-1]

    acceptor = await asyncssh.create_server(
        make, "127.0.0.1", 0, server_host_keys=[host_key], agent_forwarding=True, x11_forwarding=True
    )
    port = acceptor.get_port()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {host_key.export_public_key('openssh').decode()}")
    yield made, f"ssh://u@127.0.0.1:{port}", known
    acceptor.close()
    await acceptor.wait_closed()


async def test_a_host_gets_no_channel_into_its_callers_machine(fake_server, monkeypatch):
    made, url, known = fake_server
    monkeypatch.setenv("DISPLAY", ":0")
    async with connect(
        url, capabilities=CapabilitySet.everything(), audit=NullAudit(), known_hosts=str(known), identity_files=[]
    ) as ex:
        with pytest.raises(OpsError):
            await ex.run(Exec(["true"]))
        await made[-1].reach_back()
    assert made[-1].refused
    assert all(made[-1].refused.values()), made[-1].refused


async def test_no_password_is_ever_asked_for_or_sent(fake_server, monkeypatch):
    made, url, known = fake_server
    monkeypatch.setattr(FakeServer, "lets_in", False)
    async with connect(
        url, capabilities=CapabilitySet.everything(), audit=NullAudit(), known_hosts=str(known), identity_files=[]
    ) as ex:
        with pytest.raises(HostUnreachable, match="refused"):
            await ex.run(Exec(["true"]))
    assert made[-1].methods == []
