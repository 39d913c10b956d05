"""What accept-new writes of a new host's key: all of it, or the key isn't trusted."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh

from opsexec.hosts.known_hosts import HostKeyCheck

BEFORE = "# my hosts\n"


@contextmanager
def no_file_longer_than(length: int) -> Iterator[None]:
    """As on a full disk: what is longer is written as far as there is room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_key_that_there_is_no_room_to_remember_is_not_trusted_and_leaves_no_torn_line(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(BEFORE)
    key = asyncssh.generate_private_key("ssh-ed25519").convert_to_public()
    check = HostKeyCheck([str(known)], "accept-new")
    check.lookup("web1", "127.0.0.1", 22)
    with no_file_longer_than(len(BEFORE) + 40):
        assert not check.validate_host_public_key("web1", "127.0.0.1", 22, key)
    assert "No space left on device" in check.rejection("web1").message
    assert known.read_text() == BEFORE
    later = HostKeyCheck([str(known)], "accept-new")
    later.lookup("web1", "127.0.0.1", 22)
    assert later.validate_host_public_key("web1", "127.0.0.1", 22, key)
    assert known.read_text() == BEFORE + f"web1 {key.export_public_key('openssh').decode().strip()}\n"
