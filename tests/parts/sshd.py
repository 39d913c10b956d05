"""A real OpenSSH server of our own on loopback, and fleets of them that stand for many hosts.

Every instance has its own host key, client key, known_hosts and log, in one temporary directory.
Nothing of the machine's own SSH configuration is read, apart from what sshd compiles in.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts.free_port import free_port
from tests.parts.process_tree import descendants
from tests.parts.unix_user import current_user

#: sshd(8) refuses more ListenAddress entries than this in one process (servconf.c, MAX_LISTEN_SOCKS).
MAX_LISTEN = 16
START_DEADLINE_S = 10.0
_PORT_ATTEMPTS = 8


class SshdMissing(RuntimeError):
    """The OpenSSH server or its key generator is not installed."""


class SshdFailed(RuntimeError):
    """sshd did not start listening on every address; the message carries its log."""


def find_sshd() -> str | None:
    """Absolute path of sshd, or None; sshd re-executes itself, so a relative path would not do."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class Endpoint:
    """One address that answers SSH, and all that a client needs to log in there."""

    address: str
    port: int
    user: str
    identity: Path
    known_hosts: Path

    @property
    def url(self) -> str:
        """`ssh://user@address:port`."""
        return f"ssh://{self.user}@{self.address}:{self.port}"

    def client_options(self) -> list[str]:
        """Options for ssh, scp or `rsync -e`: our key only, strict host keys, no user configuration."""
        return [
            "-F", "none", "-p", str(self.port), "-l", self.user, "-i", str(self.identity),
            "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
            "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "GlobalKnownHostsFile=/dev/null",
            "-o", "IdentityAgent=none",
        ]  # fmt: skip

    def ssh_argv(self, *command: str, options: Sequence[str] = ()) -> list[str]:
        """argv of an OpenSSH client that runs `command` there."""
        return ["ssh", *self.client_options(), *options, self.address, *command]

    def config_block(self, alias: str) -> str:
        """A `Host` block of ssh_config(5) for this endpoint."""
        return (
            f"Host {alias}\n  HostName {self.address}\n  Port {self.port}\n  User {self.user}\n"
            f"  IdentityFile {self.identity}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  StrictHostKeyChecking yes\n  UserKnownHostsFile {self.known_hosts}\n"
            "  GlobalKnownHostsFile /dev/null\n"
        )


@dataclass
class Sshd:
    """One `sshd -D -e`; use as a context manager, or call `start` and `stop`.

    `port=0` takes a free one. `max_startups=None` leaves sshd's own default. `users` restricts logins.
    `authorized_keys` are lines added to our own key's; `extra` are sshd_config(5) lines placed before
    ours, so that they win.

    Raises SshdMissing when OpenSSH's server is not installed, SshdFailed when it does not start.
    """

    listen: Sequence[str] = ("127.0.0.1",)
    port: int = 0
    max_sessions: int = 10
    max_startups: str | None = "200:30:400"
    permit_root: bool = True
    sftp: bool = True
    extra: Sequence[str] = ()
    authorized_keys: Sequence[str] = ()
    login_user: str = field(default_factory=current_user)
    users: Sequence[str] = ()
    identity: Path | None = None
    directory: Path = field(init=False)
    process: subprocess.Popen[bytes] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not 1 <= len(self.listen) <= MAX_LISTEN:
            raise ValueError(f"sshd listens on 1 to {MAX_LISTEN} addresses, got {len(self.listen)}")

    @property
    def log_path(self) -> Path:
        """The server's own log (LogLevel VERBOSE)."""
        return self.directory / "sshd.log"

    @property
    def known_hosts(self) -> Path:
        """A known_hosts file naming every address of this server."""
        return self.directory / "known_hosts"

    @property
    def host_key(self) -> Path:
        """Private host key; the public half stands beside it with `.pub`."""
        return self.directory / "host_ed25519"

    @property
    def client_key(self) -> Path:
        """Private key that may log in."""
        return self.identity or self.directory / "client_ed25519"

    def endpoint(self, address: str | None = None, *, user: str | None = None) -> Endpoint:
        """The way in through `address` (default: the first one) as `user`."""
        return Endpoint(
            address or self.listen[0], self.port, user or self.login_user, self.client_key, self.known_hosts
        )

    def endpoint_behind(self, address: str, port: int, *, user: str | None = None) -> Endpoint:
        """The way in through a proxy at `address:port`, whose name known_hosts learns."""
        key = " ".join(self.host_key.with_suffix(".pub").read_text().split()[:2])
        with self.known_hosts.open("a") as known:
            known.write(f"[{address}]:{port} {key}\n")
        return Endpoint(address, port, user or self.login_user, self.client_key, self.known_hosts)

    @property
    def endpoints(self) -> list[Endpoint]:
        """One endpoint an address, in the order of `listen`."""
        return [self.endpoint(address) for address in self.listen]

    def url(self, user: str | None = None, address: str | None = None) -> str:
        """`ssh://user@address:port` of the first or the given address."""
        return self.endpoint(address, user=user).url

    def known_hosts_lines(self) -> list[str]:
        """known_hosts lines, one an address."""
        key = " ".join(self.host_key.with_suffix(".pub").read_text().split()[:2])
        return [f"[{address}]:{self.port} {key}" for address in self.listen]

    def host_fingerprint(self) -> str:
        """`SHA256:...` of the host key, as ssh-keygen prints it."""
        return _run("ssh-keygen", "-lf", str(self.host_key.with_suffix(".pub"))).split()[1]

    def log(self) -> str:
        """Everything that the server has logged so far."""
        return self.log_path.read_text(errors="replace")

    def log_offset(self) -> int:
        """Size of the log in bytes, to be given to `log_since`."""
        return self.log_path.stat().st_size

    def log_since(self, offset: int) -> str:
        """What was logged after `offset`."""
        with self.log_path.open("rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace")

    def connections_accepted(self) -> int:
        """How many TCP connections were accepted since the start."""
        return len(re.findall(r"^Connection from ", self.log(), re.MULTILINE))

    def logins(self) -> int:
        """How many logins succeeded since the start."""
        return len(re.findall(r"^Accepted \S+ for ", self.log(), re.MULTILINE))

    def start(self) -> Sshd:
        """Make keys and start listening on every address."""
        binary = find_sshd()
        if binary is None or shutil.which("ssh-keygen") is None:
            raise SshdMissing("sshd is not installed (Debian: apt-get install openssh-server)")
        self.directory = Path(tempfile.mkdtemp(prefix="sshd-"))
        # Other users' logins read authorized_keys as that user.
        self.directory.chmod(0o755)
        _make_key(self.host_key)
        if self.identity is None:
            _make_key(self.client_key)
        public = self.client_key.with_suffix(".pub").read_text()
        keys = self.directory / "authorized_keys"
        keys.write_text(public + "".join(f"{line}\n" for line in self.authorized_keys))
        keys.chmod(0o644)
        self._launch(binary)
        return self

    def restart(self, *, new_host_key: bool = False) -> None:
        """Stop and listen again on the same port, with another host key if asked (known_hosts stays)."""
        binary = find_sshd()
        assert binary is not None
        known = self.known_hosts.read_text()
        self._terminate()
        if new_host_key:
            self.host_key.unlink()
            self.host_key.with_suffix(".pub").unlink()
            _make_key(self.host_key)
        self._launch(binary)
        self.known_hosts.write_text(known)

    def session_pids(self) -> list[int]:
        """Pids of the sshd processes that serve connections of this server, and of nothing else."""
        if self.process is None:
            return []
        return [p.pid for p in descendants(self.process.pid) if p.comm.startswith("sshd")]

    def kill_connections(self) -> int:
        """SIGKILL every connection's server side, as a crash would; commands they ran are left alone."""
        pids = self.session_pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids)

    def stop(self) -> None:
        """Stop listening, drop the connections and remove the directory."""
        self._terminate()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Sshd:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _launch(self, binary: str) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        chosen = self.port
        for _ in range(_PORT_ATTEMPTS):
            self.port = chosen or free_port(self.listen[0])
            if self._try_launch(binary):
                self.known_hosts.write_text("".join(f"{line}\n" for line in self.known_hosts_lines()))
                return
            if chosen:
                break
        raise SshdFailed(f"sshd did not listen on {', '.join(self.listen)}:\n{self.log()}")

    def _try_launch(self, binary: str) -> bool:
        config = self.directory / "sshd_config"
        config.write_text("".join(f"{line}\n" for line in self._config_lines()))
        with self.log_path.open("ab") as log:
            since = log.tell()
            self.process = subprocess.Popen(
                [binary, "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < end and self.process.poll() is None:
            text = self.log_since(since)
            if text.count("Server listening on") == len(self.listen):
                return True
            if "failed: Address already in use" in text:
                break
            time.sleep(0.005)
        self._terminate()
        return False

    def _config_lines(self) -> list[str]:
        return [
            *self.extra,
            f"Port {self.port}",
            *(f"ListenAddress {address}" for address in self.listen),
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.directory}/authorized_keys",
            f"PidFile {self.directory}/sshd.pid",
            "LogLevel VERBOSE",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            f"PermitRootLogin {'prohibit-password' if self.permit_root else 'no'}",
            f"MaxSessions {self.max_sessions}",
            *([f"MaxStartups {self.max_startups}"] if self.max_startups else []),
            *([f"AllowUsers {' '.join(self.users)}"] if self.users else []),
            *(["Subsystem sftp internal-sftp"] if self.sftp else []),
            # Since 9.8 sshd locks out an address after failed logins; tests fail logins on purpose.
            *(["PerSourcePenalties no"] if _openssh_version() >= (9, 8) else []),
        ]

    def _terminate(self) -> None:
        if self.process is None:
            return
        sessions = self.session_pids()
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        for pid in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process = None


@dataclass
class Fleet:
    """Many addresses that each look like a host of their own, and one known_hosts for all of them."""

    servers: list[Sshd]
    endpoints: list[Endpoint]
    known_hosts: Path
    identity: Path

    def logins(self) -> int:
        """Successful logins over all servers."""
        return sum(server.logins() for server in self.servers)

    def connections_accepted(self) -> int:
        """TCP connections over all servers."""
        return sum(server.connections_accepted() for server in self.servers)

    def kill_connections(self) -> int:
        """Kill the server side of every connection; returns how many processes were killed."""
        return sum(server.kill_connections() for server in self.servers)


@contextlib.contextmanager
def fleet(
    n: int,
    *,
    user: str | None = None,
    first: str = "127.10.0.1",
    max_sessions: int = 10,
    extra: Sequence[str] = (),
) -> Iterator[Fleet]:
    """`n` host endpoints on consecutive 127.x addresses, 16 of them an sshd."""
    base = int(ipaddress.IPv4Address(first))
    addresses = [str(ipaddress.IPv4Address(base + i)) for i in range(n)]
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        identity = directory / "client_ed25519"
        _make_key(identity)
        servers = [
            stack.enter_context(
                Sshd(
                    listen=addresses[i : i + MAX_LISTEN],
                    identity=identity,
                    login_user=user or current_user(),
                    max_sessions=max_sessions,
                    extra=extra,
                    max_startups="2000:30:2000",
                )
            )
            for i in range(0, n, MAX_LISTEN)
        ]
        known_hosts = directory / "known_hosts"
        known_hosts.write_text("".join(server.known_hosts.read_text() for server in servers))
        endpoints = [Endpoint(e.address, e.port, e.user, identity, known_hosts) for s in servers for e in s.endpoints]
        yield Fleet(servers, endpoints, known_hosts, identity)


def _make_key(path: Path) -> None:
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path))


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout


def _openssh_version() -> tuple[int, int]:
    text = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    match = re.search(r"OpenSSH_(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
