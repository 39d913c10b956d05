"""The real parts of these tests, started once a worker, and the targets that one suite runs over."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from opsexec import AuditLog
from tests.conftest import require
from tests.parts.container_engine import ways  # noqa: F401  # fixtures are found by name
from tests.parts.netns import can_make_namespaces
from tests.parts.ops_agent import EVERYTHING, OpsAgent
from tests.parts.sshd import Sshd, find_sshd
from tests.parts.supervised_bottles import bottle, supervised  # noqa: F401  # fixtures are found by name
from tests.parts.tailnet import ALICE, Tailnet
from tests.parts.tailnet_build import tailnet_programs
from tests.parts.targets import Target, over_ssh
from tests.parts.unix_user import current_user, unix_user
from tests.parts.waiting import eventually_now

SUITE_PORT = 7337
"""Where the agent listens that one suite runs over; the tailnet's own tests start agents on the usual port."""

AWAKE_S = 60.0
"""Seconds until packets go to and fro: after minutes without traffic WireGuard may first have to make new keys, and
the suite's tests have bounds of their own, which are about what they do."""


def require_sshd() -> None:
    require(find_sshd() is not None, "needs OpenSSH's server (apt-get install openssh-server)")


def require_root() -> None:
    require(os.geteuid() == 0, "needs root: it makes unix users")


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    """A server every test of a worker shares. It has sshd's own limits, but for how many may be logging in at once:
    that many tests cancel a login, one after another, and a busy machine is late to see those go."""
    require_sshd()
    with Sshd() as server:
        yield server


@pytest.fixture(scope="session")
def plain_user() -> Iterator[str]:
    """A unix user without privileges."""
    require_root()
    with unix_user() as name:
        yield name


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditLog]:
    """A log of the test's own."""
    with AuditLog.open(tmp_path / "audit.jsonl", fsync="never") as log:
        yield log


@pytest.fixture
def shared_dir() -> Iterator[Path]:
    """A directory that every login may read and write (pytest's own belong to the user who runs it)."""
    with tempfile.TemporaryDirectory(prefix="shared-") as name:
        directory = Path(name)
        directory.chmod(0o777)
        yield directory


@pytest.fixture
def local(audit: AuditLog) -> Target:
    """This machine, no connection between."""
    return Target("local", "local:", current_user(), audit)


@pytest.fixture
def ssh_root(sshd: Sshd, audit: AuditLog) -> Target:
    """A root login: sshd refuses channel signals there."""
    require_root()
    return over_ssh("ssh-root", sshd.endpoint(), audit)


@pytest.fixture
def ssh_user(sshd: Sshd, plain_user: str, audit: AuditLog) -> Target:
    """A plain user's login."""
    return over_ssh("ssh-user", sshd.endpoint(user=plain_user), audit)


@pytest.fixture(scope="session")
def ops_agent() -> Iterator[OpsAgent]:
    """An agent that lets this user do everything; every test of a worker shares it."""
    with OpsAgent(max_runs_per_principal=1000, max_connections_per_principal=500) as running:
        yield running


@pytest.fixture
def agent(ops_agent: OpsAgent, audit: AuditLog) -> Target:
    """This machine, its agent between."""
    return Target("agent", ops_agent.url, current_user(), audit)


@pytest.fixture
def agent_ssh(ops_agent: OpsAgent, sshd: Sshd, audit: AuditLog) -> Target:
    """This machine, its agent between, whose socket is reached through sshd."""
    require_root()
    endpoint = sshd.endpoint()
    return replace(over_ssh("agent-ssh", endpoint, audit), url=f"agent+{endpoint.url}{ops_agent.socket}")


@pytest.fixture(scope="session")
def tailnet() -> Iterator[Tailnet]:
    """A tailnet of six nodes; every test of a worker shares it."""
    programs = tailnet_programs()
    require(programs is not None, "needs headscale and tailscale (scripts/tailnet.sh builds them, with go on PATH)")
    require(can_make_namespaces(), "needs root, network namespaces and /dev/net/tun")
    assert programs is not None
    with Tailnet(programs) as net:
        yield net


@pytest.fixture(scope="session")
def tailnet_agent(tailnet: Tailnet) -> Iterator[OpsAgent]:
    """An agent on the tailnet's server that lets alice do everything."""
    grants = [{"principal": f"tailnet:{ALICE}", "capabilities": EVERYTHING, "run_as": ["*"]}]
    with OpsAgent(
        grants,
        tailscaled=tailnet["server"],
        tailnet_port=SUITE_PORT,
        max_runs_per_principal=1000,
        max_connections_per_principal=500,
    ) as running:
        yield running


@pytest.fixture(scope="session")
def server_address(tailnet: Tailnet) -> str:
    """The tailnet's server's own address."""
    return tailnet["server"].addresses[0]


@pytest.fixture
def over_tailnet(tailnet: Tailnet, tailnet_agent: OpsAgent, server_address: str, audit: AuditLog) -> Target:
    """This machine, reached from alice's laptop over the tailnet."""
    laptop = tailnet["laptop"]
    eventually_now(lambda: laptop.exchanges_packets_with(server_address), within_s=AWAKE_S, what="a way to the server")
    socket = str(laptop.socket)
    url = f"tailnet://server:{SUITE_PORT}"
    return Target("tailnet", url, current_user(), audit, tailscaled_socket=socket, way_bytes=tailnet_way_bytes())


def tailnet_way_bytes() -> int:
    """What may lie on that way: ours, two tailscaleds' own buffers, and the kernel's of a connection to each."""
    most = [int((Path("/proc/sys/net/ipv4") / name).read_text().split()[2]) for name in ("tcp_rmem", "tcp_wmem")]
    return (32 << 20) + 2 * sum(most)


@pytest.fixture(params=["local", "ssh_root", "ssh_user", "agent", "agent_ssh", "over_tailnet"])
def target(request: pytest.FixtureRequest) -> Target:
    """Every kind of target in turn; a new kind of executor joins the suite here."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Target)
    return found


@pytest.fixture(params=["local", "ssh_root", "ssh_user", "agent", "agent_ssh", "over_tailnet"])
def terminal_target(request: pytest.FixtureRequest) -> Target:
    """Every target that has terminals."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Target)
    return found


@pytest.fixture(params=["ssh_root", "ssh_user"])
def ssh_target(request: pytest.FixtureRequest) -> Target:
    """Every target that has a connection."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Target)
    return found
