"""Logins that fail say why in one typed sentence and within their time; those that should work do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsexec import AuditLog, CapabilityDenied, CapabilitySet, Exec, HostKeyRejected, HostUnreachable, connect
from opsexec.errors import UsageError
from opsexec.host_executor import HostExecutor
from tests.conftest import require
from tests.integration.conftest import require_sshd
from tests.parts.holdings import Holdings
from tests.parts.ssh_agent import make_key, ssh_agent
from tests.parts.sshd import Endpoint, Sshd
from tests.parts.waiting import eventually

pytestmark = pytest.mark.anyio
TRUE = Exec(argv=("true",))


class Login:
    """Executors for one endpoint, each with the options that a test is about."""

    def __init__(self, endpoint: Endpoint, audit: AuditLog) -> None:
        self.endpoint = endpoint
        self.audit = audit

    def executor(self, url: str | None = None, **options: object) -> HostExecutor:
        standing: dict[str, object] = {
            "identity_files": [str(self.endpoint.identity)],
            "known_hosts": str(self.endpoint.known_hosts),
            "config_files": (),
        }
        return connect(
            url or self.endpoint.url,
            capabilities=CapabilitySet.everything(),
            audit=self.audit,
            **{**standing, **options},  # type: ignore[arg-type]  # passed on as they are
        )

    async def works(self, url: str | None = None, **options: object) -> None:
        async with self.executor(url, **options) as ex:
            assert (await ex.run(TRUE)).ok

    async def fails(self, url: str | None = None, **options: object) -> HostUnreachable:
        error = await self.fails_on_hop(url, **options)
        assert error.host == self.executor(url, **options).host
        return error

    async def fails_on_hop(self, url: str | None = None, **options: object) -> HostUnreachable:
        async with self.executor(url, **options) as ex:
            with pytest.raises(HostUnreachable) as caught:
                await asyncio.wait_for(ex.run(TRUE), 15)
        assert caught.value.hint
        assert "\n" not in caught.value.message
        return caught.value


@pytest.fixture
def login(sshd: Sshd, audit: AuditLog) -> Login:
    return Login(sshd.endpoint(), audit)


@pytest.fixture
def agent_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without keys of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


# Which program, which key, which user.


async def test_a_denied_step_never_opens_the_connection(sshd: Sshd, login: Login) -> None:
    accepted, offset = sshd.connections_accepted(), sshd.log_offset()
    async with connect(
        login.endpoint.url,
        capabilities=CapabilitySet.of("exec:/usr/bin/true"),
        audit=login.audit,
        identity_files=[str(login.endpoint.identity)],
        known_hosts=str(login.endpoint.known_hosts),
        config_files=(),
    ) as ex:
        with pytest.raises(CapabilityDenied):
            await ex.run(Exec(argv=("/usr/bin/id",)))
        assert (await ex.run(Exec(argv=("/usr/bin/true",)))).ok
    assert sshd.connections_accepted() - accepted == 1
    assert sshd.log_since(offset).count("Connection from") == 1


async def test_a_key_that_is_not_authorized_is_refused_in_words(login: Login, tmp_path: Path) -> None:
    error = await login.fails(identity_files=[str(make_key(tmp_path / "other"))])
    assert f"login refused for {login.endpoint.user}" in error.message


async def test_a_user_who_does_not_exist_is_refused_in_words(login: Login) -> None:
    url = login.endpoint.url.replace(f"{login.endpoint.user}@", "no-such-user@")
    assert "login refused for no-such-user" in (await login.fails(url)).message


async def test_no_key_at_all_is_refused_in_words(login: Login, agent_only: Path) -> None:
    assert "login refused" in (await login.fails(identity_files=[])).message
    assert "login refused" in (await login.fails(identity_files=None)).message


@pytest.mark.parametrize("kind", ["missing", "directory", "public", "garbage", "encrypted"])
async def test_a_key_file_that_can_not_be_used_is_named(
    login: Login, tmp_path: Path, kind: str, agent_only: Path
) -> None:
    key = tmp_path / kind
    if kind == "directory":
        key.mkdir()
    elif kind == "public":
        key.write_text(login.endpoint.identity.with_suffix(".pub").read_text())
    elif kind == "garbage":
        key.write_bytes(b"\xff\x00 no key")
    elif kind == "encrypted":
        make_key(key, passphrase="long enough")
    async with login.executor(identity_files=[str(key)]) as ex:
        with pytest.raises(UsageError) as caught:
            await ex.run(TRUE)
    assert str(key) in caught.value.message
    assert caught.value.hint
    if kind == "encrypted":
        assert "ssh-agent" in caught.value.hint


async def test_the_agents_keys_log_in(login: Login, agent_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ssh_agent(login.endpoint.identity) as running:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(running))
        await login.works(identity_files=None)


async def test_an_encrypted_key_logs_in_from_the_agent(
    audit: AuditLog, agent_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_sshd()
    key = make_key(agent_only / "locked", passphrase="long enough")
    with (
        Sshd(authorized_keys=[key.with_suffix(".pub").read_text().strip()]) as server,
        ssh_agent(key, passphrase="long enough") as running,
    ):
        monkeypatch.setenv("SSH_AUTH_SOCK", str(running))
        await Login(server.endpoint(), audit).works(identity_files=None)
        config = agent_only / "config"
        config.write_text(f"Host *\n  IdentityFile {key}\n")
        await Login(server.endpoint(), audit).works(identity_files=None, config_files=[str(config)])


async def test_an_agent_that_is_gone_does_not_keep_a_key_file_from_logging_in(
    login: Login, agent_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent_only / "nobody"))
    (agent_only / ".ssh").mkdir()
    (agent_only / ".ssh" / "id_ed25519").write_bytes(login.endpoint.identity.read_bytes())
    await login.works(identity_files=None)


# The configuration file.


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config"


async def test_an_alias_of_the_configuration_is_a_host(login: Login, config: Path, agent_only: Path) -> None:
    config.write_text(login.endpoint.config_block("web1"))
    await login.works("ssh://web1", config_files=[str(config)], known_hosts=None, identity_files=None)


async def test_what_the_url_says_goes_before_the_configuration(login: Login, config: Path) -> None:
    config.write_text("Host *\n  User no-such-user\n  Port 1\n")
    await login.works(config_files=[str(config)])


async def test_a_key_file_of_the_configuration_that_is_missing_is_passed_over(
    login: Login, config: Path, agent_only: Path
) -> None:
    """As ssh(1) has it: the next one may do."""
    block = login.endpoint.config_block("web1")
    config.write_text(block.replace("  IdentityFile", f"  IdentityFile {agent_only}/absent\n  IdentityFile"))
    await login.works("ssh://web1", config_files=[str(config)], known_hosts=None, identity_files=None)


async def test_a_broken_configuration_is_named(login: Login, config: Path) -> None:
    config.write_text("Host web1\n  Port many\n")
    async with login.executor("ssh://web1", config_files=[str(config)]) as ex:
        with pytest.raises(UsageError, match="configuration"):
            await ex.run(TRUE)


# Jumps.


@pytest.fixture(scope="module")
def bastion() -> Iterator[Sshd]:
    """A server on the way, which lets nobody do anything but go on."""
    require_sshd()
    with Sshd(listen=["127.0.0.21"], max_startups=None, extra=["PermitTTY no"]) as server:
        yield server


@pytest.fixture
def known_both(sshd: Sshd, bastion: Sshd, tmp_path: Path) -> Path:
    known = tmp_path / "known_both"
    known.write_text(sshd.known_hosts.read_text() + bastion.known_hosts.read_text())
    return known


def hop(server: Sshd) -> str:
    return f"{server.login_user}@{server.listen[0]}:{server.port}"


async def test_a_jump_leads_to_the_host_and_is_closed_with_it(
    login: Login, bastion: Sshd, sshd: Sshd, known_both: Path
) -> None:
    keys = [str(login.endpoint.identity), str(bastion.client_key)]
    before = bastion.logins(), sshd.logins()
    holdings = Holdings.now()
    await login.works(jump=hop(bastion), known_hosts=str(known_both), identity_files=keys)
    assert (bastion.logins() - before[0], sshd.logins() - before[1]) == (1, 1)
    await eventually(lambda: not holdings.left_since(), within_s=20, what=f"the end of {holdings.left_since()}")


async def test_several_jumps_are_made_in_order(login: Login, bastion: Sshd, known_both: Path) -> None:
    keys = [str(login.endpoint.identity), str(bastion.client_key)]
    before = bastion.logins()
    await login.works(jump=f"{hop(bastion)},{hop(bastion)}", known_hosts=str(known_both), identity_files=keys)
    assert bastion.logins() - before == 2


async def test_a_jump_of_the_configuration_is_made(
    login: Login, bastion: Sshd, known_both: Path, config: Path, agent_only: Path
) -> None:
    block = login.endpoint.config_block("web1") + "  ProxyJump gate\n" + bastion.endpoint().config_block("gate")
    config.write_text(block)
    options: dict[str, object] = {"config_files": [str(config)], "identity_files": None}
    before = bastion.logins()
    await login.works("ssh://web1", known_hosts=str(known_both), **options)
    await login.works("ssh://web1", known_hosts=None, **options)
    assert bastion.logins() - before == 2
    await login.works("ssh://web1", known_hosts=str(known_both), jump="none", **options)
    assert bastion.logins() - before == 2


async def test_a_jump_that_was_taken_out_of_the_configuration_is_made_no_more(
    login: Login, config: Path, agent_only: Path
) -> None:
    block = login.endpoint.config_block("web1")
    options: dict[str, object] = {"config_files": [str(config)], "known_hosts": None, "identity_files": None}
    config.write_text(f"{block}  ProxyJump root@127.0.0.1:1\n")
    assert "jump root@127.0.0.1:1" in str(await login.fails_on_hop("ssh://web1", **options))
    config.write_text(block)
    await login.works("ssh://web1", **options)


async def test_each_hops_key_is_checked(login: Login, bastion: Sshd, sshd: Sshd) -> None:
    keys = [str(login.endpoint.identity), str(bastion.client_key)]
    logins = bastion.logins(), sshd.logins()
    error = await login.fails_on_hop(jump=hop(bastion), known_hosts=str(sshd.known_hosts), identity_files=keys)
    assert isinstance(error, HostKeyRejected)
    assert error.got == bastion.host_fingerprint()
    assert "jump" in str(error)
    assert (bastion.logins(), sshd.logins()) == logins
    error = await login.fails(jump=hop(bastion), known_hosts=str(bastion.known_hosts), identity_files=keys)
    assert isinstance(error, HostKeyRejected)
    assert error.got == sshd.host_fingerprint()
    assert sshd.logins() == logins[1]


async def test_a_hop_that_nobody_answers_is_named(login: Login) -> None:
    error = await login.fails_on_hop(jump="root@127.0.0.1:1")
    assert "jump root@127.0.0.1:1" in str(error)
    assert "Connection refused" in error.message


async def test_a_host_that_the_hop_can_not_reach_is_a_typed_error(
    login: Login, bastion: Sshd, known_both: Path
) -> None:
    keys = [str(login.endpoint.identity), str(bastion.client_key)]
    url = f"ssh://{login.endpoint.user}@127.0.0.1:1"
    await login.fails(url, jump=hop(bastion), known_hosts=str(known_both), identity_files=keys)


async def test_jumps_in_a_circle_end(login: Login, config: Path) -> None:
    config.write_text("Host a\n  HostName 127.0.0.1\n  ProxyJump b\nHost b\n  HostName 127.0.0.1\n  ProxyJump a\n")
    error = await login.fails_on_hop("ssh://a", config_files=[str(config)])
    assert "jumps" in error.message


async def test_a_proxy_command_that_ends_is_named(login: Login, config: Path) -> None:
    for command in ("/bin/false", "/nowhere/connect %h"):
        config.write_text(f"Host a\n  HostName 127.0.0.1\n  ProxyCommand {command}\n")
        error = await login.fails("ssh://a", config_files=[str(config)])
        assert "its ProxyCommand may have" in error.message
    # asyncio learns of its end in a thread of its own; without that it would warn of a program that still runs.
    await eventually(
        lambda: not any(each.name.startswith("waitpid-") for each in threading.enumerate()),
        within_s=10,
        what="asyncio has heard of their ends",
    )
    await asyncio.sleep(0)


# The network.


async def test_a_closed_port_is_said_at_once(login: Login) -> None:
    begun = time.monotonic()
    error = await login.fails("ssh://root@127.0.0.1:1")
    assert "Connection refused" in error.message
    assert time.monotonic() - begun < 8


@contextlib.contextmanager
def listener(*, backlog: int = 5, greeting: bytes | None = None) -> Iterator[int]:
    """A port where somebody listens who is no SSH server: silent, or saying one thing to the first caller."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(backlog)
        if greeting is None:
            yield server.getsockname()[1]
            return
        loop = asyncio.get_running_loop()

        def greet() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(greeting)

        loop.add_reader(server, greet)
        try:
            yield server.getsockname()[1]
        finally:
            loop.remove_reader(server)


async def test_a_port_where_nobody_speaks_ends_within_its_time(login: Login) -> None:
    with listener() as port:
        begun = time.monotonic()
        error = await login.fails(f"ssh://root@127.0.0.1:{port}", connect_timeout_s=0.5)
    assert "0.5 s" in error.message
    assert time.monotonic() - begun < 8


async def test_a_port_that_drops_every_packet_ends_within_its_time(login: Login) -> None:
    """A full backlog: the kernel drops the SYN, as a firewall does."""
    with listener(backlog=0) as port, contextlib.ExitStack() as stack:
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        begun = time.monotonic()
        error = await login.fails(f"ssh://root@127.0.0.1:{port}", connect_timeout_s=0.5)
    assert "0.5 s" in error.message
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize(
    "greeting",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-1.5-old\r\n", b"\xff" * 5000, b"SSH-2.0-x\r\n" + b"\0" * 64],
)
async def test_a_port_where_something_else_speaks_is_a_typed_error(login: Login, greeting: bytes) -> None:
    with listener(greeting=greeting) as port:
        await login.fails(f"ssh://root@127.0.0.1:{port}", connect_timeout_s=3)


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example", "-x", "under_score\u00ad\u2028"])
async def test_what_can_not_be_a_name_is_a_typed_error(login: Login, name: str) -> None:
    try:
        async with login.executor(f"ssh://root@{name}", connect_timeout_s=3) as ex:
            with pytest.raises((HostUnreachable, UsageError)):
                await ex.run(TRUE)
    except UsageError:
        assert name.startswith("-") or not name.isascii()


UNRESOLVED = """
import asyncio
from opsexec import CapabilitySet, Exec, HostUnreachable, NullAudit, connect
async def main():
    async with connect("ssh://root@web1.invalid", capabilities=CapabilitySet.everything(), audit=NullAudit(),
                       config_files=(), identity_files=[]) as ex:
        try:
            await ex.run(Exec(argv=("true",)))
        except HostUnreachable as error:
            print(error.message)
asyncio.run(main())
"""


async def test_a_name_that_nobody_knows_is_a_typed_error() -> None:
    """In a network namespace of its own, so that no query leaves this machine."""
    unshare = require("unshare", "needs unshare(1) (util-linux)")
    done = await asyncio.to_thread(
        subprocess.run,
        [unshare, "--map-root-user", "--net", sys.executable, "-c", UNRESOLVED],
        capture_output=True, text=True, timeout=40, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    require("Operation not permitted" not in done.stderr, "needs user and network namespaces")
    assert done.stdout.startswith("unknown host name"), done.stderr
