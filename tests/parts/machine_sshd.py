"""The OpenSSH server of a booted machine: on its own loopback, with keys made there, and only while a test wants it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.parts.booted_machine import BootedMachine

NO_SSHD = "/etc/ssh/sshd_not_to_be_run"
"""While this file is there, Debian's ssh.service doesn't start: a machine boots without a server."""
SETTINGS = "/etc/ssh/sshd_config.d/opsexec.conf"
HOST_KEY, IDENTITY, KNOWN_HOSTS = "/etc/ssh/test_host_key", "/root/test-identity", "/root/test-known-hosts"
HOST = "ssh://root@127.0.0.1"


@contextmanager
def sshd_there(machine: BootedMachine) -> Iterator[list[str]]:
    """The machine's own ssh.service; yields the words by which a service command of its root reaches it."""
    machine.run("mkdir", "-p", "-m", "700", "/root/.ssh")
    for path in (HOST_KEY, IDENTITY):
        machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path)
    machine.run("cp", f"{IDENTITY}.pub", "/root/.ssh/authorized_keys")
    machine.write(KNOWN_HOSTS, "127.0.0.1 " + machine.run("cat", f"{HOST_KEY}.pub"))
    machine.write(SETTINGS, f"ListenAddress 127.0.0.1\nHostKey {HOST_KEY}\nPasswordAuthentication no\n")
    machine.run("rm", NO_SSHD)
    machine.run("systemctl", "start", "ssh")  # Type=notify: it listens once this returns
    try:
        yield ["--host", HOST, "--identity", IDENTITY, "--known-hosts", KNOWN_HOSTS]
    finally:
        machine.run("systemctl", "stop", "ssh")
